package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// goSuite is the functional test suite of a Go client, run from a copy of its module: addresses and the like are fixed in
// the source.
type goSuite struct {
	name, module string
	edits        []edit
	packages     []string // what to test, below the module
	build        []string
	tests        string // a pattern of those that need a broker
	timeout      time.Duration
	each         time.Duration // see testRun
	bind         string        // of the broker's client listener
	config       []string      // more of the broker's configuration
	users        []user        // that the broker is to know, if it is to ask
	apache       []string      // the same of Apache Kafka's configuration
	apacheUsers  []string      // and for the formatting of its directory
	env          []string
	complaints   string                                                                        // the environment's name for a command that prints what the broker held against its clients
	beside       func(ctx context.Context, shop workshop, dir string) (stop func(), err error) // what has to run beside the broker
	waits        []wait
}

// edit is a change to a file of the copy.
type edit struct {
	file     string
	from, to string // a regular expression and what stands for it
}

// wait names what a failure waits for, by the test's name or by its last words.
type wait struct {
	test, words string // regular expressions; empty matches
	capability  string
	slow        bool // it would wait for long, so it is not run
}

func goSuites() []goSuite {
	return []goSuite{saramaSuite(), kafkaGoSuite(), kafkaGoSaslSuite()}
}

// run builds the suite and runs it against a broker of its own.
func (g goSuite) run(ctx context.Context, o options, shop workshop, program, dir string) report {
	started := time.Now()
	base := result{client: g.name, version: "unknown", from: "Go", outcome: passed}
	if o.apache {
		base.client += " on Apache Kafka"
	}
	source, version, err := g.copy(ctx, shop)
	if err != nil {
		return report{base.failed("install", err)}
	}
	base.version = version
	tests, err := g.against(ctx, o, shop, program, dir, source)
	if err != nil {
		return report{base.failed("run", err)}
	}
	waits := g.waits
	if o.apache {
		waits = nil // It has everything; what fails there fails because of the one node, or of the suite.
	}
	results := tests.report(base, waits)
	for _, one := range results {
		if one.outcome == failed {
			fmt.Printf("%s: %s: %s\n", base.client, one.step, line(one.why))
		}
	}
	fmt.Printf("%s %s: %s, %.1f s\n", base.client, version, results[0].why, time.Since(started).Seconds())
	return results
}

// peer is a broker that a suite runs against.
type peer struct {
	stop       func() error
	complaints string // a command that prints what it held against its clients
}

// start runs a broker of the suite's own.
func (g goSuite) start(ctx context.Context, o options, shop workshop, program, dir string) (*peer, error) {
	if !free(g.bind) {
		return nil, skipped(g.bind + " is taken, and the suite asks for it")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if o.apache {
		jars, err := apacheJars(ctx, shop)
		if err != nil {
			return nil, err
		}
		a, err := formatApache(ctx, jars, dir, g.apacheUsers, g.apache...)
		if err != nil {
			return nil, err
		}
		return &peer{a.stop, "cat " + filepath.Join(dir, "kafka.log")}, nil
	}
	run := func() (*brokerProcess, error) { return startBrokerAt(ctx, program, dir, g.bind, g.config...) }
	if len(g.users) > 0 {
		run = func() (*brokerProcess, error) { return startGuardedAt(ctx, program, dir, g.bind, g.users, g.config...) }
	}
	b, err := run()
	if err != nil {
		return nil, err
	}
	// OUT_OF_ORDER_SEQUENCE_NUMBER is 45.
	return &peer{b.stop, "curl -sf http://" + b.admin + `/metrics | sed '/api="Produce".*code="45"/s/^/OutOfOrderSequenceException: /'`}, nil
}

// against runs the tests with a broker of their own.
func (g goSuite) against(ctx context.Context, o options, shop workshop, program, dir, source string) (all *tested, err error) {
	dir = filepath.Join(dir, g.name)
	broker, err := g.start(ctx, o, shop, program, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, broker.stop()) }()
	if g.beside != nil {
		stop, err := g.beside(ctx, shop, dir)
		if err != nil {
			return nil, err
		}
		defer stop()
	}
	all = newTested()
	for _, name := range g.packages {
		binary := shop.bin(g.name + ".test")
		if err := shell(ctx, source, "go", slices.Concat([]string{"test", "-c", "-mod=mod", "-o", binary}, g.build, []string{name})...); err != nil {
			return nil, err
		}
		run := testRun{dir: filepath.Join(source, name), program: binary, timeout: g.timeout, each: g.each, only: g.tests, env: g.env}
		if g.complaints != "" {
			run.env = append(slices.Clone(g.env), g.complaints+"="+broker.complaints)
		}
		if !o.apache {
			if run.without, err = g.slow(run.dir); err != nil {
				return nil, err
			}
		}
		tests, err := run.tests(ctx)
		if err != nil {
			return nil, err
		}
		all.take(tests)
		for _, left := range run.without {
			all.outcomes[left] = "not run"
		}
	}
	return all, nil
}

// slow lists the tests of a folder that would wait for ever.
func (g goSuite) slow(dir string) ([]string, error) {
	var all []string
	for _, w := range g.waits {
		if !w.slow {
			continue
		}
		named, err := testsNamed(dir, w.test)
		if err != nil {
			return nil, err
		}
		all = append(all, named...)
	}
	return all, nil
}

// copy copies the module out of the cache, in the version that the drivers' go.mod pins, and edits it.
func (g goSuite) copy(ctx context.Context, shop workshop) (dir, version string, err error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}} {{.Version}}", g.module)
	cmd.Dir = shop.source("go")
	out, err := cmd.Output()
	if err != nil {
		return "", "", skipped(fmt.Sprintf("find %s: %v", g.module, err))
	}
	from, version, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	dir = shop.bin(g.name + "-source")
	if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(from))); err != nil {
		return "", "", err
	}
	// Files of the cache may not be written to.
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
	for _, e := range g.edits {
		err = errors.Join(err, e.apply(dir))
	}
	return dir, strings.TrimPrefix(version, "v"), err
}

func (e edit) apply(dir string) error {
	name := filepath.Join(dir, e.file)
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	changed := regexp.MustCompile(e.from).ReplaceAll(text, []byte(e.to))
	if bytes.Equal(changed, text) {
		return fmt.Errorf("%s has no %s any more", e.file, e.from)
	}
	return os.WriteFile(name, changed, 0o644)
}

// testsNamed lists the tests of a folder whose names match.
func testsNamed(dir, pattern string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	declared, wanted := regexp.MustCompile(`(?m)^func (Test\w*)\(`), regexp.MustCompile(pattern)
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, match := range declared.FindAllStringSubmatch(string(text), -1) {
			if wanted.MatchString(match[1]) {
				names = append(names, match[1])
			}
		}
	}
	return names, nil
}

// waitsFor returns the capability that a failure waits for, or nothing.
func waitsFor(waits []wait, test, words string) string {
	for _, w := range waits {
		if regexp.MustCompile(w.test).MatchString(test) && regexp.MustCompile(w.words).MatchString(words) {
			return w.capability
		}
	}
	return ""
}

// saramaSuite wants five brokers behind toxiproxy: here all five names are one broker, and topics have one replica.
func saramaSuite() goSuite {
	return goSuite{
		name: "sarama-suite", module: "github.com/IBM/sarama", packages: []string{"."}, build: []string{"-tags", "functional"},
		tests: "^(TestFunc|TestVersionMatrix)", timeout: 8 * time.Minute, bind: "127.0.0.1:39091",
		edits: []edit{
			{"functional_test.go", `ReplicationFactor: +[23],`, "ReplicationFactor: 1,"},
			// It reads the broker's log out of docker compose, and wants no OutOfOrderSequenceException there.
			{
				"functional_producer_test.go", `"docker",\s+"compose",\s+"logs",\s+"--since",\s+logSince,\s+fmt\.Sprintf\("kafka-%d", leader\.ID\(\)\),`,
				`"sh", "-c", os.Getenv("COMPAT_COMPLAINTS"),`,
			},
		},
		complaints: "COMPAT_COMPLAINTS",
		config:     []string{"listeners.client.advertise: 127.0.0.1:29091"},
		apache: []string{
			"group.min.session.timeout.ms=100", "listeners=PLAINTEXT://127.0.0.1:39091,CONTROLLER://127.0.0.1:39095", "controller.quorum.voters=1@127.0.0.1:39095",
			"advertised.listeners=PLAINTEXT://127.0.0.1:29091",
		},
		env:    []string{"TOXIPROXY_ADDR=http://" + toxiproxyAddress, "KAFKA_VERSION=4.1.0"},
		beside: toxiproxies,
		waits: []wait{
			{test: "^TestFuncTxn", capability: "transactions", slow: true},
			{test: "Transactions$|^TestFuncInitProducerId3$", capability: "transactions"},
			{test: "^TestFuncAdminAlterPartitionReassignments$", capability: "more than one node; fails on one node of Apache Kafka too"},
			{test: "^TestFuncAdminIncrementalAlterConfigs$", capability: "a broker's configs that change while it runs"},
			{test: "^TestFuncAdminDescribeLogDirs$", capability: "five brokers; fails on one node of Apache Kafka too"},
			{test: "^TestFuncAdminListConsumerGroupOffsets$", words: "docker", capability: "brokers in docker, one of which it stops; fails on Apache Kafka here too"},
		},
	}
}

const (
	toxiproxyAddress = "127.0.0.1:8474"
	toxiproxyModule  = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0"
)

// toxiproxies runs toxiproxy with five names for the one broker.
func toxiproxies(ctx context.Context, shop workshop, dir string) (stop func(), err error) {
	if err := shell(ctx, dir, "env", "GOBIN="+shop.bin("toxiproxy"), "go", "install", toxiproxyModule); err != nil {
		return nil, err
	}
	if !free(toxiproxyAddress) {
		return nil, skipped(toxiproxyAddress + " is taken, and the suite asks for it")
	}
	cmd := exec.Command(shop.bin("toxiproxy", "server"), "-host", "127.0.0.1", "-port", "8474")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() { _, _ = cmd.Process.Signal(syscall.SIGTERM), cmd.Wait() }
	if !eventually(ctx, 10*time.Second, func() bool { return listens(ctx, toxiproxyAddress) }) {
		stop()
		return nil, errors.New("toxiproxy did not come up")
	}
	for i := 1; i <= 5; i++ {
		proxy := fmt.Sprintf(`{"name":"kafka%d","listen":"127.0.0.1:2909%d","upstream":"127.0.0.1:39091","enabled":true}`, i, i)
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+toxiproxyAddress+"/proxies", strings.NewReader(proxy))
		if err != nil {
			stop()
			return nil, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			stop()
			return nil, fmt.Errorf("make a proxy: %w", err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode >= 300 {
			stop()
			return nil, fmt.Errorf("make a proxy: %s %w", response.Status, err)
		}
	}
	return stop, nil
}

// kafkaGoSuite wants its broker at localhost:9092. Some of its tests panic, and some wait for ever: each has a process.
func kafkaGoSuite() goSuite {
	return goSuite{
		name: "kafka-go-suite", module: kafkaGoModule, packages: []string{"."}, each: time.Minute,
		tests: ".", bind: "localhost:9092", config: []string{
			"auto.create.topics.enable: true", "group.min.session.timeout.ms: 6000",
			"listeners.client.advertise: localhost:9092", "authorizer: true", "allow.everyone.if.no.acl.found: true",
			`super.users: "User:ANONYMOUS"`,
		},
		apache: kafkaGoApache, apacheUsers: kafkaGoApacheUsers,
		env: []string{"KAFKA_VERSION=4.1.0", "KAFKA_SKIP_NETTEST=1"},
		waits: []wait{
			{test: "^TestUnsupportedSASLMechanism$", capability: "a second client listener, which asks for SASL; passes in kafka-go-sasl"},
			{test: "^TestWriter$", words: "^writing_a_message_with_SASL[^;]*$", capability: "a second client listener, which asks for SASL, in one of its subtests"},
			{test: "^TestClientFindCoordinator$", capability: "transactions"},
			{test: "^TestConn$", words: "partitions to be empty",
				capability: "metadata that answers before a topic is made: it is made, and told, in one answer here (auto.create.topics.enable)"},
			{test: "^TestCommitLoopImmediateFlushOnGenerationEnd$", words: "single final commit",
				capability: "nothing of a broker: it asks a mock, and counts on which of two goroutines comes first"},
			{test: "^TestReaderConsumerGroup$", words: "nil pointer", capability: "a fix of the client's panic; fails on Apache Kafka too"},
		},
	}
}

// kafkaGoSaslSuite is those of its tests that want a broker at localhost:9093 that asks for SASL.
func kafkaGoSaslSuite() goSuite {
	return goSuite{
		name: "kafka-go-sasl", module: kafkaGoModule, packages: []string{"./sasl", "."}, each: time.Minute,
		tests: "^(TestSASL|TestUnsupportedSASLMechanism)$", bind: "localhost:9093", config: []string{
			"auto.create.topics.enable: true", "listeners.client.advertise: localhost:9093",
			"sasl.enabled.mechanisms: PLAIN,SCRAM-SHA-256,SCRAM-SHA-512", "sasl.plain.without.tls: true",
		},
		users: []user{
			{"adminplain", "admin-secret", kadm.ScramSha256}, {"adminscram256", "admin-secret-256", kadm.ScramSha256},
			{"adminscram512", "admin-secret-512", kadm.ScramSha512},
		},
		apache: kafkaGoApache, apacheUsers: kafkaGoApacheUsers,
		env: []string{"KAFKA_VERSION=4.1.0"},
	}
}

const kafkaGoModule = "github.com/segmentio/kafka-go"

// kafkaGoApache configures Apache Kafka as kafka-go's own checks do.
var kafkaGoApache = []string{
	"listeners=PLAINTEXT://localhost:9092,SASL://localhost:9093,CONTROLLER://localhost:9095", "controller.quorum.voters=1@localhost:9095",
	"advertised.listeners=PLAINTEXT://localhost:9092,SASL://localhost:9093",
	"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT",
	"auto.create.topics.enable=true", "message.max.bytes=200000000", "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
	`listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_adminplain="admin-secret";`,
	"listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
	"listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
	"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer", "allow.everyone.if.no.acl.found=true",
	"super.users=User:ANONYMOUS",
}

var kafkaGoApacheUsers = []string{
	"--add-scram", "SCRAM-SHA-256=[name=adminscram256,password=admin-secret-256]",
	"--add-scram", "SCRAM-SHA-512=[name=adminscram512,password=admin-secret-512]",
}
