package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/process"
)

// apacheVersion is that of clients/java/pom.xml.
const apacheVersion = "4.3.1"

// apacheHint is what to do when the tools of Java are not there.
const apacheHint = "install Java 17 or later and Maven (on Debian: apt-get install openjdk-17-jdk-headless maven)"

// apacheJars brings Apache Kafka's jars from Maven's registry and returns the class path.
func apacheJars(ctx context.Context, shop workshop) (string, error) {
	for _, tool := range []string{"java", "javac", "mvn"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", skipped(tool + " is not installed: " + apacheHint)
		}
	}
	pom, home := shop.source("java", "pom.xml"), shop.bin("java")
	want, err := os.ReadFile(pom)
	if err != nil {
		return "", err
	}
	return filepath.Join(home, "lib", "*"), process.Once(home, string(want), func() error {
		return shell(ctx, home, "mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime",
			"-DoutputDirectory="+filepath.Join(home, "lib"))
	})
}

// javaFlags keep a tool's virtual machine small and quick to start.
var javaFlags = []string{"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=WARN"}

// javaDriver compiles the driver of Apache Kafka's own client.
func javaDriver(ctx context.Context, shop workshop) ([]string, error) {
	jars, err := apacheJars(ctx, shop)
	if err != nil {
		return nil, err
	}
	classes := shop.bin("java-driver")
	if err := shell(ctx, shop.root, "javac", "-cp", jars, "-d", classes, shop.source("java", "Driver.java")); err != nil {
		return nil, err
	}
	return slices.Concat([]string{"java"}, javaFlags, []string{"-cp", jars + string(os.PathListSeparator) + classes, "Driver"}), nil
}

// apache is a real Apache Kafka broker, and its controller, in one process.
type apache struct {
	client  string
	process *process.Process
}

// startApache formats a directory and runs Apache Kafka in it until it listens, with more lines of configuration.
func startApache(ctx context.Context, jars, dir string, more ...string) (*apache, error) {
	return formatApache(ctx, jars, dir, nil, more...)
}

// formatApache is startApache with more arguments for the formatting.
func formatApache(ctx context.Context, jars, dir string, format []string, more ...string) (*apache, error) {
	a := &apache{}
	var controller string
	if err := process.FreeAddresses(&a.client, &controller); err != nil {
		return nil, err
	}
	lines := append([]string{
		"process.roles=broker,controller", "node.id=1", "controller.quorum.voters=1@" + controller,
		"listeners=PLAINTEXT://" + a.client + ",CONTROLLER://" + controller, "controller.listener.names=CONTROLLER",
		"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT", "inter.broker.listener.name=PLAINTEXT",
		"log.dirs=" + filepath.Join(dir, "data"), "auto.create.topics.enable=false", "group.initial.rebalance.delay.ms=0",
		"offsets.topic.replication.factor=1", "offsets.topic.num.partitions=1", "transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1", "transaction.state.log.num.partitions=1", "share.coordinator.state.topic.replication.factor=1",
		"share.coordinator.state.topic.min.isr=1", "share.coordinator.state.topic.num.partitions=1",
	}, more...)
	config := filepath.Join(dir, "server.properties")
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	formatted := exec.CommandContext(ctx, "java", append([]string{"-Xmx128m", "-cp", jars, "kafka.tools.StorageTool", "format",
		"-t", "bWlsbHJhY2UtZ29sZGVuLQ", "-c", config}, format...)...)
	if out, err := formatted.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("format for Apache Kafka: %w\n%s", err, out)
	}
	var err error
	a.process, err = process.Start(filepath.Join(dir, "kafka.log"), "java", "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Dlog4j2.level=WARN",
		"-cp", jars, "kafka.Kafka", config)
	if err != nil {
		return nil, err
	}
	for _, line := range more {
		if value, ok := strings.CutPrefix(line, "listeners="); ok { // The last one counts.
			first, _, _ := strings.Cut(value, ",")
			_, a.client, _ = strings.Cut(first, "://")
		}
	}
	if !eventually(ctx, time.Minute, func() bool { return listens(ctx, a.client) }) {
		return nil, errors.Join(fmt.Errorf("no answer from Apache Kafka in %s; see kafka.log there", dir), a.stop())
	}
	return a, nil
}

func listens(ctx context.Context, address string) bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
	return err == nil && conn.Close() == nil
}

// stop ends the process with SIGTERM and waits for it.
func (a *apache) stop() error { return a.process.End(syscall.SIGTERM) }
