// Command sarama is Sarama behind the driver protocol of package compat.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"

	"github.com/millrace-io/millrace/internal/compat/clients/go/driver"
)

func main() {
	driver.Main(driver.Verbs{"create": create, "produce": produce, "consume": consume, "read": read})
}

func config(asked driver.Asked) *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.RackID = asked["rack"]
	c.Net.TLS.Config = asked.TLS()
	c.Net.TLS.Enable = c.Net.TLS.Config != nil
	if mechanism := asked["mechanism"]; mechanism != "" {
		c.Net.SASL.Enable, c.Net.SASL.User, c.Net.SASL.Password = true, asked["user"], asked["password"]
		c.Net.SASL.Mechanism = sarama.SASLMechanism(mechanism)
		c.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &conversation{} }
	}
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Interval = 500 * time.Millisecond
	c.Consumer.MaxWaitTime = 500 * time.Millisecond
	c.Consumer.Group.Session.Timeout = 6 * time.Second
	c.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	return c
}

// conversation is SCRAM, which Sarama leaves to the application.
type conversation struct{ *scram.ClientConversation }

func (c *conversation) Begin(user, password, authzID string) error {
	client, err := scram.SHA512.NewClient(user, password, authzID)
	if err == nil {
		c.ClientConversation = client.NewConversation()
	}
	return err
}

func create(_ context.Context, asked driver.Asked) error {
	admin, err := sarama.NewClusterAdmin([]string{asked["bootstrap"]}, config(asked))
	if err != nil {
		return err
	}
	err = admin.CreateTopic(asked["topic"], &sarama.TopicDetail{NumPartitions: int32(asked.Int("partitions")), ReplicationFactor: int16(asked.Int("replicas"))}, false)
	return errors.Join(err, admin.Close())
}

func produce(_ context.Context, asked driver.Asked) error {
	c := config(asked)
	c.Producer.Return.Successes = true
	c.Producer.Idempotent, c.Net.MaxOpenRequests, c.Producer.RequiredAcks = true, 1, sarama.WaitForAll
	c.Producer.Compression = map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}[asked["codec"]]
	producer, err := sarama.NewSyncProducer([]string{asked["bootstrap"]}, c)
	if err != nil {
		return err
	}
	var messages []*sarama.ProducerMessage
	for _, key := range asked.Keys() {
		messages = append(messages, &sarama.ProducerMessage{Topic: asked["topic"], Key: sarama.StringEncoder(key), Value: sarama.StringEncoder(driver.Value)})
	}
	return errors.Join(producer.SendMessages(messages), producer.Close())
}

// member handles the group's sessions.
type member struct{ topic string }

func (m member) Setup(s sarama.ConsumerGroupSession) error {
	driver.Assigned(s.Claims()[m.topic])
	return nil
}

func (member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (member) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		driver.Record(message.Partition, message.Offset, message.Key)
		s.MarkMessage(message, "")
	}
	return nil
}

func consume(ctx context.Context, asked driver.Asked) error {
	c := config(asked)
	group, err := sarama.NewConsumerGroup([]string{asked["bootstrap"]}, asked["group"], c)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := group.Consume(ctx, []string{asked["topic"]}, member{asked["topic"]}); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "consume:", err)
		}
	}
	return group.Close()
}

func read(_ context.Context, asked driver.Asked) error {
	consumer, err := sarama.NewConsumer([]string{asked["bootstrap"]}, config(asked))
	if err != nil {
		return err
	}
	claim, err := consumer.ConsumePartition(asked["topic"], int32(asked.Int("partition")), int64(asked.Int("offset")))
	if err != nil {
		return err
	}
	for range asked.Int("count") {
		message := <-claim.Messages()
		driver.Record(message.Partition, message.Offset, message.Key)
	}
	return errors.Join(claim.Close(), consumer.Close())
}
