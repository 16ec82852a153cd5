package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/process"
)

// kafkaVersion is the release whose jars are fetched; it needs Java 17.
const kafkaVersion = "4.3.1"

// kafkaProject names the jars of a broker to Maven. Log4j's binding must match the log4j-core that comes along.
const kafkaProject = `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>bench</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>` + kafkaVersion + `</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version></dependency>
</dependencies></project>
`

// kafkaSettings are those of a broker and controller in one process with the release's defaults, where one node allows
// them. It acknowledges from the page cache.
const kafkaSettings = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[1]s
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=%[3]s
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=5
group.initial.rebalance.delay.ms=0
`

// kafkaCluster is a cluster id, as `kafka-storage random-uuid` makes them.
const kafkaCluster = "bWlsbHJhY2UtYmVuY2gtMQ"

// kafka is Apache Kafka from its Maven jars.
type kafka struct {
	name     string
	home     workshop
	settings []string // beside kafkaSettings
	daemon   daemon
	address  string
}

func newKafka(name string, home workshop, settings ...string) *kafka {
	return &kafka{name: name, home: home, settings: settings, daemon: daemon{log: home.log(name)}}
}

func (k *kafka) Name() string     { return k.name }
func (k *kafka) Processes() []int { return k.daemon.pids() }
func (k *kafka) Driver() driver   { return kafkaDriver{address: k.address} }

// Version implements system.
func (k *kafka) Version() string {
	return strings.Join(append([]string{"Apache Kafka " + kafkaVersion + ", -Xmx1g, G1"}, k.settings...), ", ")
}

func (k *kafka) lib() string        { return k.home.bin("kafka", "lib") }
func (k *kafka) properties() string { return k.home.data(k.name + ".properties") }
func (k *kafka) class(name ...string) []string {
	return append([]string{"-cp", filepath.Join(k.lib(), "*")}, name...)
}

// Install implements system.
func (k *kafka) Install(ctx context.Context) error {
	if _, err := exec.LookPath("java"); err != nil {
		return errors.New("there is no java on PATH, and Apache Kafka needs Java 17 or newer; leave it out with -systems")
	}
	home := k.home.bin("kafka")
	return process.Once(home, kafkaProject, func() error {
		if err := os.WriteFile(filepath.Join(home, "pom.xml"), []byte(kafkaProject), 0o644); err != nil {
			return err
		}
		return k.home.command(ctx, home, "fetching Apache Kafka's jars with Maven", "mvn", "-q", "-B", "dependency:copy-dependencies",
			"-DoutputDirectory=lib", "-DincludeScope=runtime")
	})
}

// Start implements system. Formatting comes before exec.
func (k *kafka) Start(ctx context.Context) (time.Time, error) {
	if err := os.RemoveAll(k.home.data(k.name)); err != nil {
		return time.Time{}, err
	}
	var controller string
	if err := process.FreeAddresses(&k.address, &controller); err != nil {
		return time.Time{}, err
	}
	text := fmt.Sprintf(kafkaSettings, k.address, controller, k.home.data(k.name)) + strings.Join(k.settings, "\n") + "\n"
	if err := os.WriteFile(k.properties(), []byte(text), 0o600); err != nil {
		return time.Time{}, err
	}
	format := k.class("kafka.tools.StorageTool", "format", "-t", kafkaCluster, "-c", k.properties())
	if out, err := exec.CommandContext(ctx, "java", format...).CombinedOutput(); err != nil {
		return time.Time{}, fmt.Errorf("format Kafka's directory: %w\n%s", err, out)
	}
	return k.Restart(ctx)
}

// Restart implements restartable.
func (k *kafka) Restart(ctx context.Context) (time.Time, error) {
	execAt, err := k.daemon.start("java", k.command(k.properties())...)
	if err != nil {
		return execAt, err
	}
	return execAt, k.daemon.serving(ctx, k.address)
}

// command runs a broker.
func (k *kafka) command(properties string) []string {
	flags := []string{"-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-Dlog4j2.level=WARN"}
	return append(flags, k.class("kafka.Kafka", properties)...)
}

// Kill implements restartable.
func (k *kafka) Kill() error { return k.daemon.end(syscall.SIGKILL) }

// Stop implements system. It has nothing to keep, and a controlled shutdown takes seconds.
func (k *kafka) Stop() error {
	return errors.Join(k.daemon.end(syscall.SIGKILL), os.RemoveAll(k.home.data(k.name)))
}
