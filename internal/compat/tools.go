package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// toolsName is Apache Kafka's own command-line tools, in -only and in the report.
const toolsName = "kafka-tools"

const toolTimeout = 60 * time.Second

// toolbox runs Apache Kafka's tools against the broker.
type toolbox struct {
	command   []string // java with flags and class path
	bootstrap string
	dir       string
}

// toolStep is one thing that an operator does with a tool.
type toolStep struct {
	name string
	run  func(toolbox, context.Context) error
}

const (
	toolTopics   = "org.apache.kafka.tools.TopicCommand"
	toolGroups   = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
	toolConfigs  = "kafka.admin.ConfigCommand"
	toolOffsets  = "org.apache.kafka.tools.GetOffsetShell"
	toolDirs     = "org.apache.kafka.tools.LogDirsCommand"
	toolDelete   = "org.apache.kafka.tools.DeleteRecordsCommand"
	toolElect    = "org.apache.kafka.tools.LeaderElectionCommand"
	toolWriter   = "org.apache.kafka.tools.ConsoleProducer"
	toolReader   = "org.apache.kafka.tools.consumer.ConsoleConsumer"
	toolProduce  = "org.apache.kafka.tools.VerifiableProducer"
	toolConsume  = "org.apache.kafka.tools.VerifiableConsumer"
	toolPerform  = "org.apache.kafka.tools.ProducerPerformance"
	toolSelfTest = "org.apache.kafka.tools.ClientCompatibilityTest"
	toolFeatures = "org.apache.kafka.tools.FeatureCommand"
	toolQuorum   = "org.apache.kafka.tools.MetadataQuorumCommand"
	toolCluster  = "org.apache.kafka.tools.ClusterTool"
	toolVersions = "org.apache.kafka.tools.BrokerApiVersionsCommand"
)

var toolSteps = []toolStep{
	{"topics: create, list, describe, alter", toolbox.topics},
	{"console producer and consumer", toolbox.console},
	{"verifiable producer, every codec", toolbox.verifiableProducer},
	{"verifiable consumers, a rebalance", toolbox.verifiableConsumers},
	{"consumer groups: list, describe, members, reset, delete", toolbox.groups},
	{"get-offsets", toolbox.offsets},
	{"configs: describe, alter, delete", toolbox.configs},
	{"log-dirs", toolbox.logDirs},
	{"delete-records", toolbox.deleteRecords},
	{"leader-election", toolbox.election},
	{"features, quorum, cluster id, api versions", toolbox.cluster},
	{"producer performance", toolbox.performance},
	{"client compatibility test", toolbox.selfTest},
	{"topics: delete", toolbox.deleteTopic},
}

// runTools runs every step.
func runTools(ctx context.Context, shop workshop, broker *brokerProcess, dir string) report {
	started := time.Now()
	base := result{client: toolsName, version: apacheVersion, from: "Maven", outcome: passed}
	jars, err := apacheJars(ctx, shop)
	if err != nil {
		return report{base.failed("install", err)}
	}
	t := toolbox{command: slices.Concat([]string{"java"}, javaFlags, []string{"-cp", jars}), bootstrap: broker.client, dir: dir}
	var results report
	for _, s := range toolSteps {
		one := base
		one.step = s.name
		if err := s.run(t, ctx); err != nil {
			one = base.failed(s.name, err)
		}
		results = append(results, one)
	}
	fmt.Printf("%s %s: %d of %d steps passed, %.1f s\n", toolsName, apacheVersion, results.count(passed), len(results), time.Since(started).Seconds())
	return results
}

// here stands for the broker's address among a tool's arguments; else it goes first.
const here = "@"

// run runs a tool that ends by itself and returns what it printed.
func (t toolbox) run(ctx context.Context, class string, arguments ...string) (string, error) {
	return t.feed(ctx, nil, class, arguments...)
}

// feed is run with something on the tool's standard input.
func (t toolbox) feed(ctx context.Context, in io.Reader, class string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	at := max(slices.Index(arguments, here), 0)
	rest := arguments[at:]
	if at > 0 {
		rest = rest[1:]
	}
	all := slices.Concat(t.command[1:], []string{class}, arguments[:at], []string{"--bootstrap-server", t.bootstrap}, rest)
	cmd := exec.CommandContext(ctx, t.command[0], all...)
	cmd.Stdin, cmd.WaitDelay = in, time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if err != nil {
		words := strings.TrimSpace(said.String() + out.String())
		err = fmt.Errorf("%s %s: %w: %s", class[strings.LastIndex(class, ".")+1:], strings.Join(arguments, " "), err, words[max(0, len(words)-400):])
	}
	return out.String(), err
}

// expecting runs a tool and demands that what it prints has every one of some pieces.
func (t toolbox) expecting(ctx context.Context, pieces []string, class string, arguments ...string) error {
	out, err := t.run(ctx, class, arguments...)
	if err != nil {
		return err
	}
	for _, piece := range pieces {
		if !strings.Contains(out, piece) {
			return fmt.Errorf("%s %s printed no %q: %s", class[strings.LastIndex(class, ".")+1:], strings.Join(arguments, " "), piece, out)
		}
	}
	return nil
}

const toolTopic = "tools"

func (t toolbox) topics(ctx context.Context) error {
	return errors.Join(
		t.expecting(ctx, []string{"Created topic tools"}, toolTopics, "--create", "--topic", toolTopic, "--partitions", "2",
			"--replication-factor", "1", "--config", "retention.ms=7200000"),
		t.expecting(ctx, []string{toolTopic}, toolTopics, "--list"),
		t.expecting(ctx, []string{"PartitionCount: 2", "ReplicationFactor: 1", "retention.ms=7200000", "Leader: 1"}, toolTopics,
			"--describe", "--topic", toolTopic),
		t.expecting(ctx, nil, toolTopics, "--alter", "--topic", toolTopic, "--partitions", "3"),
		t.expecting(ctx, []string{"PartitionCount: 3"}, toolTopics, "--describe", "--topic", toolTopic),
		t.expecting(ctx, nil, toolTopics, "--describe", "--under-replicated-partitions"),
	)
}

func (t toolbox) console(ctx context.Context) error {
	const count = 5
	if _, err := t.feed(ctx, strings.NewReader("k1:v1\nk2:v2\nk3:v3\nk4:v4\nk5:v5\n"), toolWriter, "--topic", toolTopic,
		"--reader-property", "parse.key=true", "--reader-property", "key.separator=:"); err != nil {
		return err
	}
	out, err := t.run(ctx, toolReader, "--topic", toolTopic, "--from-beginning", "--max-messages", fmt.Sprint(count),
		"--group", "tools-console", "--timeout-ms", "20000", "--formatter-property", "print.key=true")
	if err != nil {
		return err
	}
	if lines := strings.Count(out, "\tv"); lines != count {
		return fmt.Errorf("%d of %d records came: %s", lines, count, out)
	}
	return nil
}

func (t toolbox) verifiableProducer(ctx context.Context) error {
	var problems []error
	for _, codec := range allCodecs {
		config := filepath.Join(t.dir, "producer-"+codec+".properties")
		if err := os.WriteFile(config, []byte("compression.type="+codec+"\n"), 0o600); err != nil {
			return err
		}
		problems = append(problems, t.expecting(ctx, []string{`"sent":100,"acked":100`}, toolProduce, "--topic", toolTopic,
			"--max-messages", "100", "--acks", "-1", "--command-config", config))
	}
	return errors.Join(problems...)
}

// member is a verifiable consumer that runs until it is stopped.
func (t toolbox) member(ctx context.Context, group string) (*running, error) {
	return launch(ctx, slices.Concat(t.command, []string{toolConsume, "--bootstrap-server", t.bootstrap, "--topic", toolTopic,
		"--group-id", group, "--group-protocol", "classic", "--reset-policy", "earliest", "--verbose"}), (*running).verifiable)
}

// verifiable takes a line of a verifiable consumer.
func (r *running) verifiable(line []byte) bool {
	var said struct {
		Name       string
		Partitions []struct{ Partition int32 }
		delivered
	}
	if err := json.Unmarshal(line, &said); err != nil {
		return false
	}
	switch said.Name {
	case "partitions_assigned", "partitions_revoked":
		r.assigned = nil
		for _, p := range said.Partitions {
			if said.Name == "partitions_assigned" {
				r.assigned = append(r.assigned, p.Partition)
			}
		}
	case "record_data":
		r.records = append(r.records, said.delivered)
	}
	return true
}

// verifiableConsumers runs one member to the end of the topic, has a second join and leave, and demands a commit.
func (t toolbox) verifiableConsumers(ctx context.Context) error {
	const group, want = "tools-verifiable", 505
	first, err := t.member(ctx, group)
	if err != nil {
		return err
	}
	defer first.abandon()
	if !eventually(ctx, toolTimeout, func() bool { return len(distinct(first)) == want }) {
		return fmt.Errorf("%d of %d records came: %s", len(distinct(first)), want, first.lastWords())
	}
	second, err := t.member(ctx, group)
	if err != nil {
		return err
	}
	defer second.abandon()
	if !eventually(ctx, toolTimeout, func() bool {
		return len(first.partitions()) > 0 && len(second.partitions()) > 0 && len(first.partitions()) < 3
	}) {
		return fmt.Errorf("with two members: they own %v and %v", first.partitions(), second.partitions())
	}
	if err := second.stop(ctx); err != nil {
		return err
	}
	if !eventually(ctx, toolTimeout, func() bool { return len(first.partitions()) == 3 }) {
		return fmt.Errorf("after the second left, the first owns %v", first.partitions())
	}
	return first.stop(ctx)
}

func (t toolbox) groups(ctx context.Context) error {
	const group = "tools-verifiable"
	return errors.Join(
		t.expecting(ctx, []string{group}, toolGroups, "--list"),
		t.expecting(ctx, []string{"Empty"}, toolGroups, "--list", "--state"),
		t.expecting(ctx, []string{toolTopic, " 0 "}, toolGroups, "--describe", "--group", group),
		t.expecting(ctx, []string{"Empty"}, toolGroups, "--describe", "--group", group, "--state"),
		t.expecting(ctx, nil, toolGroups, "--describe", "--group", group, "--members", "--verbose"),
		t.expecting(ctx, []string{toolTopic}, toolGroups, "--reset-offsets", "--group", group, "--topic", toolTopic, "--to-earliest", "--execute"),
		t.expecting(ctx, nil, toolGroups, "--reset-offsets", "--group", group, "--topic", toolTopic, "--shift-by", "1", "--dry-run"),
		t.expecting(ctx, []string{"Successful"}, toolGroups, "--delete-offsets", "--group", group, "--topic", toolTopic),
		t.expecting(ctx, []string{"successful"}, toolGroups, "--delete", "--group", "tools-console"),
	)
}

func (t toolbox) offsets(ctx context.Context) error {
	return errors.Join(
		t.expecting(ctx, []string{"tools:0:", "tools:1:", "tools:2:"}, toolOffsets, "--topic", toolTopic),
		t.expecting(ctx, []string{"tools:0:0", "tools:1:0", "tools:2:0"}, toolOffsets, "--topic", toolTopic, "--time", "earliest"),
		t.expecting(ctx, []string{"tools:0:"}, toolOffsets, "--topic", toolTopic, "--time", "max-timestamp"),
	)
}

func (t toolbox) configs(ctx context.Context) error {
	topic := []string{"--entity-type", "topics", "--entity-name", toolTopic}
	with := func(more ...string) []string { return slices.Concat(topic, more) }
	return errors.Join(
		t.expecting(ctx, []string{"retention.ms=7200000"}, toolConfigs, with("--describe")...),
		t.expecting(ctx, []string{"cleanup.policy=delete"}, toolConfigs, with("--describe", "--all")...),
		t.expecting(ctx, []string{"Completed"}, toolConfigs, with("--alter", "--add-config", "retention.ms=3600000,max.message.bytes=2000000")...),
		t.expecting(ctx, []string{"retention.ms=3600000", "max.message.bytes=2000000"}, toolConfigs, with("--describe")...),
		t.expecting(ctx, []string{"Completed"}, toolConfigs, with("--alter", "--delete-config", "max.message.bytes")...),
		t.expecting(ctx, []string{"node.id=1"}, toolConfigs, "--entity-type", "brokers", "--entity-name", "1", "--describe", "--all"),
	)
}

func (t toolbox) logDirs(ctx context.Context) error {
	out, err := t.run(ctx, toolDirs, "--describe", "--topic-list", toolTopic)
	if err != nil {
		return err
	}
	var told struct {
		Brokers []struct {
			LogDirs []struct {
				Partitions []struct{ Partition string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out[max(0, strings.Index(out, "{")):]), &told); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if len(told.Brokers) != 1 || len(told.Brokers[0].LogDirs) != 1 || len(told.Brokers[0].LogDirs[0].Partitions) != 3 {
		return fmt.Errorf("not one broker with one directory and three partitions: %s", out)
	}
	return nil
}

func (t toolbox) deleteRecords(ctx context.Context) error {
	plan := filepath.Join(t.dir, "delete.json")
	text := fmt.Sprintf(`{"version":1,"partitions":[{"topic":%q,"partition":0,"offset":2}]}`, toolTopic)
	if err := os.WriteFile(plan, []byte(text), 0o600); err != nil {
		return err
	}
	return errors.Join(
		t.expecting(ctx, []string{"low_watermark: 2"}, toolDelete, "--offset-json-file", plan),
		t.expecting(ctx, []string{"tools:0:2"}, toolOffsets, "--topic", toolTopic, "--time", "earliest"),
	)
}

func (t toolbox) election(ctx context.Context) error {
	return errors.Join(
		t.expecting(ctx, []string{"Valid replica already elected"}, toolElect, "--election-type", "preferred", "--topic", toolTopic, "--partition", "0"),
		t.expecting(ctx, nil, toolElect, "--election-type", "preferred", "--all-topic-partitions"),
	)
}

func (t toolbox) cluster(ctx context.Context) error {
	features, err := t.run(ctx, toolFeatures, "describe")
	if err == nil && strings.Contains(features, "Exception") {
		err = errors.New(features)
	}
	return errors.Join(err,
		t.expecting(ctx, []string{"LeaderId:"}, toolQuorum, "describe", "--status"),
		t.expecting(ctx, []string{"Cluster ID: "}, toolCluster, "cluster-id", here),
		t.expecting(ctx, []string{"Produce(0)", "Fetch(1)"}, toolVersions),
	)
}

func (t toolbox) performance(ctx context.Context) error {
	return t.expecting(ctx, []string{"20000 records sent"}, toolPerform, "--topic", toolTopic, "--num-records", "20000", "--record-size", "100",
		"--throughput", "-1", "--command-property", "acks=all")
}

// selfTest is told what the broker lists: the test demands that what is not supported is refused.
func (t toolbox) selfTest(ctx context.Context) error {
	listed, err := t.lists(ctx, kmsg.DescribeACLs.Int16())
	if err != nil {
		return err
	}
	const topic = "tools-selftest" // the test reads its own two records from the start
	if err := t.expecting(ctx, nil, toolTopics, "--create", "--topic", topic, "--partitions", "1"); err != nil {
		return err
	}
	return t.expecting(ctx, nil, toolSelfTest, "--topic", topic, "--num-cluster-nodes", "1",
		"--offsets-for-times-supported", "True", "--cluster-id-supported", "True", "--expect-record-too-large-exception", "False",
		"--create-topics-supported", "True", "--describe-acls-supported", map[bool]string{true: "True", false: "False"}[listed], "--describe-configs-supported", "True",
		"--idempotent-producer-supported", "True")
}

// lists reports whether the broker lists an API.
func (t toolbox) lists(ctx context.Context, key int16) (bool, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(t.bootstrap))
	if err != nil {
		return false, err
	}
	defer client.Close()
	versions, err := kmsg.NewPtrApiVersionsRequest().RequestWith(ctx, client)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(versions.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == key }), nil
}

func (t toolbox) deleteTopic(ctx context.Context) error {
	if err := t.expecting(ctx, nil, toolTopics, "--delete", "--topic", toolTopic); err != nil {
		return err
	}
	out, err := t.run(ctx, toolTopics, "--list")
	if err == nil && slices.Contains(strings.Fields(out), toolTopic) {
		err = errors.New("the topic is still listed")
	}
	return err
}
