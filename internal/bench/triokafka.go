package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kafkaTrioSettings are those of three brokers that are controllers as well, with the release's defaults but for topics that
// want two replicas in sync, as our own do. They acknowledge from the page cache.
const kafkaTrioSettings = `process.roles=broker,controller
node.id=%[1]d
controller.quorum.voters=%[2]s
listeners=PLAINTEXT://%[3]s,CONTROLLER://%[4]s
advertised.listeners=PLAINTEXT://%[3]s
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=%[5]s
min.insync.replicas=2
offsets.topic.num.partitions=5
transaction.state.log.num.partitions=5
share.coordinator.state.topic.num.partitions=5
group.initial.rebalance.delay.ms=0
`

// kafkaTrio is three of Apache Kafka, from the jars that one runs from.
type kafkaTrio struct {
	trio
	controllers [trioNodes]string // addresses
}

// Version implements system.
func (k *kafkaTrio) Version() string {
	return "Apache Kafka " + kafkaVersion + ", three brokers that are controllers, -Xmx1g, G1"
}

// Driver implements system.
func (k *kafkaTrio) Driver() driver { return k.driver() }

// Install implements system.
func (k *kafkaTrio) Install(ctx context.Context) error { return newKafka(k.name, k.home).Install(ctx) }

func (k *kafkaTrio) properties(i int) string { return k.data(i) + ".properties" }

// Start implements system.
func (k *kafkaTrio) Start(ctx context.Context) (execAt time.Time, err error) {
	if err := k.clean(); err != nil {
		return time.Time{}, err
	}
	var voters []string
	for i := range k.clients {
		if err := k.place(i, &k.clients[i], &k.controllers[i]); err != nil {
			return time.Time{}, err
		}
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, k.controllers[i]))
	}
	one := newKafka(k.name, k.home)
	for i := range k.clients {
		text := fmt.Sprintf(kafkaTrioSettings, i+1, strings.Join(voters, ","), k.clients[i], k.controllers[i], k.data(i))
		if err := os.WriteFile(k.properties(i), []byte(text), 0o600); err != nil {
			return time.Time{}, err
		}
		format := one.class("kafka.tools.StorageTool", "format", "-t", kafkaCluster, "-c", k.properties(i))
		if out, err := exec.CommandContext(ctx, "java", format...).CombinedOutput(); err != nil {
			return time.Time{}, fmt.Errorf("format Kafka's directory: %w\n%s", err, out)
		}
	}
	for i := range k.clients {
		if execAt, err = k.StartNode(ctx, i+1); err != nil {
			return execAt, err
		}
	}
	if err := k.serving(ctx); err != nil {
		return execAt, err
	}
	return execAt, k.driver().brokers(ctx, trioNodes)
}

// StartNode implements clustered.
func (k *kafkaTrio) StartNode(ctx context.Context, node int) (time.Time, error) {
	return k.start(ctx, node-1, "java", newKafka(k.name, k.home).command(k.properties(node-1))...)
}

// controller is the node that leads the metadata quorum.
func (k *kafkaTrio) controller(ctx context.Context) (leader int, err error) {
	client, err := kgo.NewClient(k.driver().seeds())
	if err != nil {
		return 0, err
	}
	defer client.Close()
	request := kmsg.NewPtrDescribeQuorumRequest()
	topic, partition := kmsg.NewDescribeQuorumRequestTopic(), kmsg.NewDescribeQuorumRequestTopicPartition()
	topic.Topic, topic.Partitions = "__cluster_metadata", append(topic.Partitions, partition)
	request.Topics = append(request.Topics, topic)
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return 0, fmt.Errorf("ask who leads the quorum: %w", err)
	}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			leader = int(p.LeaderID)
		}
	}
	return leader, nil
}

// Strike implements clustered.
func (k *kafkaTrio) Strike(ctx context.Context, s strike) (struck, error) {
	return k.driver().strike(ctx, s, k.controller, k.hit)
}

// Whole implements clustered.
func (k *kafkaTrio) Whole(ctx context.Context, topic string) error {
	return k.driver().whole(ctx, topic)
}
