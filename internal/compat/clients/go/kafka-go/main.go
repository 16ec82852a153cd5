// Command kafka-go is segmentio's kafka-go behind the driver protocol of package compat.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/millrace-io/millrace/internal/compat/clients/go/driver"
)

func main() {
	driver.Main(driver.Verbs{"create": create, "produce": produce, "consume": consume, "read": read})
}

func dialer(asked driver.Asked) *kafka.Dialer {
	return &kafka.Dialer{Timeout: 10 * time.Second, DualStack: true, TLS: asked.TLS(), SASLMechanism: mechanism(asked)}
}

// mechanism is how to authenticate, or nil.
func mechanism(asked driver.Asked) sasl.Mechanism {
	switch asked["mechanism"] {
	case "":
		return nil
	case "PLAIN":
		return plain.Mechanism{Username: asked["user"], Password: asked["password"]}
	}
	m, err := scram.Mechanism(scram.SHA512, asked["user"], asked["password"])
	if err != nil {
		complain("scram: %v", err)
		os.Exit(2)
	}
	return m
}

func create(ctx context.Context, asked driver.Asked) error {
	connection, err := dialer(asked).DialContext(ctx, "tcp", asked["bootstrap"])
	if err != nil {
		return err
	}
	err = connection.CreateTopics(kafka.TopicConfig{Topic: asked["topic"], NumPartitions: asked.Int("partitions"), ReplicationFactor: asked.Int("replicas")})
	return errors.Join(err, connection.Close())
}

func produce(ctx context.Context, asked driver.Asked) error {
	writer := &kafka.Writer{Addr: kafka.TCP(asked["bootstrap"]), Topic: asked["topic"], RequiredAcks: kafka.RequireAll,
		Balancer: &kafka.Hash{}, BatchTimeout: 20 * time.Millisecond, Transport: &kafka.Transport{TLS: asked.TLS(), SASL: mechanism(asked)}}
	writer.Compression = map[string]kafka.Compression{
		"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd,
	}[asked["codec"]]
	var messages []kafka.Message
	for _, key := range asked.Keys() {
		messages = append(messages, kafka.Message{Key: []byte(key), Value: []byte(driver.Value)})
	}
	return errors.Join(writer.WriteMessages(ctx, messages...), writer.Close())
}

var partition = regexp.MustCompile(`partition:(\d+)`)

// watch tells of assignments, which the Reader shows to its logger alone.
func watch(format string, arguments ...any) {
	text := fmt.Sprintf(format, arguments...)
	if !strings.HasPrefix(text, "subscribed to topics and partitions:") {
		return
	}
	var owned []int32
	for _, match := range partition.FindAllStringSubmatch(text, -1) {
		if p, err := strconv.Atoi(match[1]); err == nil {
			owned = append(owned, int32(p))
		}
	}
	driver.Assigned(owned)
}

func complain(format string, arguments ...any) { fmt.Fprintf(os.Stderr, format+"\n", arguments...) }

func consume(ctx context.Context, asked driver.Asked) error {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Dialer: dialer(asked), Brokers: []string{asked["bootstrap"]}, GroupID: asked["group"], Topic: asked["topic"], StartOffset: kafka.FirstOffset,
		MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 500 * time.Millisecond, SessionTimeout: 6 * time.Second,
		RebalanceTimeout: 6 * time.Second, HeartbeatInterval: 500 * time.Millisecond, JoinGroupBackoff: 500 * time.Millisecond,
		Logger: kafka.LoggerFunc(watch), ErrorLogger: kafka.LoggerFunc(complain),
	})
	for {
		message, err := reader.FetchMessage(ctx)
		if ctx.Err() != nil {
			return reader.Close()
		}
		if err != nil {
			return err
		}
		driver.Record(int32(message.Partition), message.Offset, message.Key)
		if err := reader.CommitMessages(ctx, message); err != nil && ctx.Err() == nil {
			complain("commit: %v", err)
		}
	}
}

func read(ctx context.Context, asked driver.Asked) error {
	reader := kafka.NewReader(kafka.ReaderConfig{Dialer: dialer(asked), Brokers: []string{asked["bootstrap"]}, Topic: asked["topic"], Partition: asked.Int("partition"),
		MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 500 * time.Millisecond})
	if err := reader.SetOffset(int64(asked.Int("offset"))); err != nil {
		return err
	}
	for range asked.Int("count") {
		message, err := reader.ReadMessage(ctx)
		if err != nil {
			return err
		}
		driver.Record(int32(message.Partition), message.Offset, message.Key)
	}
	return reader.Close()
}
