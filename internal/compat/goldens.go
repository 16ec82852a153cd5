package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace-io/millrace/internal/compat/golden"
	"github.com/millrace-io/millrace/internal/process"
)

// goldenName is the comparison with Apache Kafka, in -only and in the report.
const goldenName = "golden"

// runGolden compares, and tells of it in one result, with the tables as its details.
func runGolden(ctx context.Context, o options, shop workshop, program, dir string) report {
	started := time.Now()
	base := result{client: goldenName, version: apacheVersion, from: "Maven", step: "answers", outcome: passed}
	pairs, err := comparePairs(ctx, shop, program, dir)
	if err != nil {
		return report{base.failed("run", err)}
	}
	guarded, err := compareGuarded(ctx, shop, program, dir)
	if err != nil {
		return report{base.failed("run with SASL", err)}
	}
	pairs = append(pairs, guarded...)
	var tables strings.Builder
	golden.Write(&tables, pairs)
	base.details = tables.String()
	differing := golden.Differing(pairs)
	base.why = fmt.Sprintf("%d answers compared, %d differ", len(pairs), differing)
	if differing > 0 {
		base.outcome = failed
		fmt.Println(base.details)
	}
	if o.goldens != "" {
		var kept bytes.Buffer
		if err := errors.Join(golden.Keep(&kept, pairs), os.WriteFile(o.goldens, kept.Bytes(), 0o644)); err != nil {
			return report{base, base.failed("fixtures", err)}
		}
	}
	fmt.Printf("%s %s: %s, %.1f s\n", goldenName, apacheVersion, base.why, time.Since(started).Seconds())
	return report{base}
}

// comparePairs asks Apache Kafka and a broker of ours, both new, the same.
func comparePairs(ctx context.Context, shop workshop, program, dir string) (pairs []golden.Pair, err error) {
	jars, err := apacheJars(ctx, shop)
	if err != nil {
		return nil, err
	}
	kafkaDir, oursDir := filepath.Join(dir, "golden-kafka"), filepath.Join(dir, "golden-ours")
	if err := errors.Join(os.MkdirAll(kafkaDir, 0o755), os.MkdirAll(oursDir, 0o755)); err != nil {
		return nil, err
	}
	kafka, err := startApache(ctx, jars, kafkaDir, goldenApache...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, kafka.stop()) }()
	// The session timeout is as Apache Kafka has it by default.
	ours, err := startBroker(ctx, program, oursDir, "group.min.session.timeout.ms: 6000", "authorizer: true",
		"allow.everyone.if.no.acl.found: true", `super.users: "User:ANONYMOUS"`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ours.stop()) }()
	return golden.Ask(ctx, golden.Brokers{Kafka: kafka.client, Ours: ours.client})
}

// goldenApache has Apache Kafka apply access rules, and assign partitions of consumer groups in the answer to the
// heartbeat that asks for it instead of up to a second later.
var goldenApache = []string{
	"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer", "allow.everyone.if.no.acl.found=true",
	"super.users=User:ANONYMOUS", "group.consumer.assignment.interval.ms=0", "group.consumer.assignor.offload.enable=false",
	"group.consumer.min.heartbeat.interval.ms=1000", "group.consumer.heartbeat.interval.ms=1000",
}

// guardedUser is who brokers with SASL know.
var guardedUser = golden.Guard{User: "golden", Password: "not a secret"}

// compareGuarded asks both how they take SASL.
func compareGuarded(ctx context.Context, shop workshop, program, dir string) (pairs []golden.Pair, err error) {
	jars, err := apacheJars(ctx, shop)
	if err != nil {
		return nil, err
	}
	kafkaDir, oursDir := filepath.Join(dir, "guarded-kafka"), filepath.Join(dir, "guarded-ours")
	if err := errors.Join(os.MkdirAll(kafkaDir, 0o755), os.MkdirAll(oursDir, 0o755)); err != nil {
		return nil, err
	}
	var address, controller string
	if err := process.FreeAddresses(&address, &controller); err != nil {
		return nil, err
	}
	const login = "org.apache.kafka.common.security."
	kafka, err := formatApache(ctx, jars, kafkaDir, []string{
		"--add-scram", fmt.Sprintf("SCRAM-SHA-256=[name=%s,password=%s]", guardedUser.User, guardedUser.Password),
	}, "listeners=SASL://"+address+",CONTROLLER://"+controller, "advertised.listeners=SASL://"+address,
		"controller.quorum.voters=1@"+controller, "listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT",
		"inter.broker.listener.name=SASL", "sasl.mechanism.inter.broker.protocol=PLAIN",
		"sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		fmt.Sprintf(`listener.name.sasl.plain.sasl.jaas.config=%splain.PlainLoginModule required username="%[2]s" password="%[3]s" user_%[2]s="%[3]s";`,
			login, guardedUser.User, guardedUser.Password),
		"listener.name.sasl.scram-sha-256.sasl.jaas.config="+login+"scram.ScramLoginModule required;",
		"listener.name.sasl.scram-sha-512.sasl.jaas.config="+login+"scram.ScramLoginModule required;")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, kafka.stop()) }()
	ours, err := startGuardedAt(ctx, program, oursDir, "", []user{{guardedUser.User, guardedUser.Password, kadm.ScramSha256}},
		"sasl.enabled.mechanisms: PLAIN,SCRAM-SHA-256,SCRAM-SHA-512", "sasl.plain.without.tls: true")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ours.stop()) }()
	return golden.AskGuarded(ctx, golden.Brokers{Kafka: kafka.client, Ours: ours.client}, guardedUser)
}
