package raftctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/sdk"
)

// lineBytesMax is the longest input line: a record of the largest batch.
const lineBytesMax = 64 << 20

// produceFlags are the flags of produce.
type produceFlags struct {
	topic     string
	key       string
	hasKey    bool
	headers   []string
	format    string
	ndjson    bool
	partition int32
	tombstone bool
}

func (c *cli) produceCommand() *cobra.Command {
	var f produceFlags
	cmd := &cobra.Command{
		Use:   "produce TOPIC [-k KEY] [-H KEY=VALUE ...] [-f FORMAT | --ndjson]",
		Short: "Produce a record per line of standard input",
		Long: "Produce a record per line of standard input: the line is the value, or is taken apart by a format\n" +
			"such as '%k\\t%v\\n', or is a record as JSON (what `consume -o ndjson` prints).",
		Args: exactly("TOPIC"),
	}
	cmd.Flags().StringVarP(&f.key, "key", "k", "", "key of every record")
	cmd.Flags().StringArrayVarP(&f.headers, "header", "H", nil, "header of every record, KEY=VALUE")
	cmd.Flags().StringVarP(&f.format, "format", "f", "", "how a line is made of %k and %v")
	cmd.Flags().BoolVar(&f.ndjson, "ndjson", false, "each line is a record as JSON")
	cmd.Flags().Int32Var(&f.partition, "partition", -1, "partition of every record (default: by key)")
	cmd.Flags().BoolVar(&f.tombstone, "tombstone", false, "an empty line is a null value")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.topic, f.hasKey = args[0], cmd.Flags().Changed("key")
		read, err := f.reader()
		if err != nil {
			return err
		}
		return c.produce(cmd.Context(), f.topic, read)
	}
	return cmd
}

// reader returns the function that makes a record of a line.
func (f *produceFlags) reader() (func(line []byte) (*sdk.Record, error), error) {
	parse := func(line []byte) (*sdk.Record, error) {
		return &sdk.Record{Value: append([]byte{}, line...), Partition: -1}, nil
	}
	switch {
	case f.ndjson && f.format != "":
		return nil, usageError("produce: choose -f or --ndjson")
	case f.ndjson:
		parse = fromJSON
	case f.format != "":
		parsed, err := parseFormat(f.format)
		if err == nil {
			err = parsed.checkReadable()
		}
		if err != nil {
			return nil, err
		}
		parse = parsed.read
	}
	headers, err := recordHeaders(f.headers)
	if err != nil {
		return nil, err
	}
	return func(line []byte) (*sdk.Record, error) {
		r, err := parse(line)
		if err != nil || r == nil {
			return nil, err
		}
		r.Topic = f.topic
		if f.hasKey {
			r.Key = []byte(f.key)
		}
		if f.partition >= 0 {
			r.Partition = f.partition
		}
		if f.tombstone && len(r.Value) == 0 {
			r.Value = nil
		}
		r.Headers = append(r.Headers, headers...)
		return r, nil
	}, nil
}

func recordHeaders(pairs []string) ([]kgo.RecordHeader, error) {
	var headers []kgo.RecordHeader
	for _, pair := range pairs {
		key, value, found := strings.Cut(pair, "=")
		if !found {
			return nil, usageError("-H %q is not KEY=VALUE", pair)
		}
		headers = append(headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	return headers, nil
}

// partitioner honours a record's partition where one is set, and otherwise spreads as Kafka's clients do.
func partitioner() kgo.Partitioner {
	byKey := kgo.StickyKeyPartitioner(nil)
	return kgo.BasicConsistentPartitioner(func(topic string) func(*kgo.Record, int) int {
		spread := byKey.ForTopic(topic)
		return func(r *kgo.Record, n int) int {
			if r.Partition >= 0 {
				return int(r.Partition)
			}
			return spread.Partition(r, n)
		}
	})
}

func (c *cli) produce(ctx context.Context, topic string, read func([]byte) (*sdk.Record, error)) error {
	client, err := c.client(sdk.WithKafka(kgo.RecordPartitioner(partitioner())))
	if err != nil {
		return err
	}
	partitions, err := c.checkTopics(ctx, client.Kafka(), topic)
	if err != nil {
		return errors.Join(err, client.Close())
	}
	count := &acknowledgements{topic: topic}
	sending := c.untilStalled(ctx, count, client.Kafka().BufferedProduceRecords)
	stop := c.progress("records acknowledged", func() int { n, _ := count.soFar(); return n })
	err = c.lines(func(number int, line []byte) error {
		record, err := read(line)
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		if record != nil && int(record.Partition) >= partitions {
			return notFound("line %d: %s has no partition %d; it has %s", number, topic, record.Partition, plural(partitions, "partition"))
		}
		if record != nil {
			client.Kafka().Produce(sending.Context(), record, count.done)
		}
		_, failed := count.soFar()
		return errors.Join(failed, sending.Context().Err())
	})
	flushed := client.Kafka().Flush(sending.Context())
	sending.Stop()
	stop()
	acknowledged, failed := count.soFar()
	switch stalled := sending.Wait(); {
	case stalled != nil:
		err = stalled
	case err == nil:
		err = errors.Join(failed, flushed)
	}
	switch {
	case c.forPrograms():
		err = errors.Join(err, c.showValue(map[string]int{"acknowledged": acknowledged}))
	case !c.quiet:
		fmt.Fprintf(c.errs, "%s acknowledged\n", plural(acknowledged, "record"))
	}
	return errors.Join(err, client.Close())
}

// untilStalled returns a group whose context ends when records wait and none was acknowledged for the time limit. The
// client's own limit on a record's age counts from the record's timestamp, so old records would never be sent.
func (c *cli) untilStalled(ctx context.Context, count *acknowledgements, buffered func() int64) *task.Group {
	watch := task.NewGroup(ctx)
	watch.Go("produce", func(ctx context.Context) error {
		ticker := time.NewTicker(c.timeout)
		defer ticker.Stop()
		before, waiting := 0, false
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
			}
			now, _ := count.soFar()
			if waiting && now == before {
				return unhealthy("nothing was acknowledged for %s: see `raftctl cluster health`, or raise --timeout", c.timeout)
			}
			before, waiting = now, buffered() > 0
		}
	})
	return watch
}

// acknowledgements counts what the brokers took. It is safe for concurrent use.
type acknowledgements struct {
	topic string

	mu     sync.Mutex
	count  int
	failed error // the first
}

func (a *acknowledgements) done(_ *kgo.Record, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.count++
	} else if a.failed == nil {
		a.failed = fmt.Errorf("produce to %s: %w", a.topic, err)
	}
}

func (a *acknowledgements) soFar() (count int, failed error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count, a.failed
}

// lines calls f with each line of standard input.
func (c *cli) lines(f func(number int, line []byte) error) error {
	return eachLine(c.in, f)
}

// eachLine calls f with each line, counted from 1.
func eachLine(r io.Reader, f func(number int, line []byte) error) error {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 64<<10), lineBytesMax)
	number := 0
	for scanner.Scan() {
		number++
		if err := f(number, scanner.Bytes()); err != nil {
			return err
		}
	}
	if errors.Is(scanner.Err(), bufio.ErrTooLong) {
		return usageError("line %d has more than %d bytes", number+1, lineBytesMax)
	}
	return scanner.Err()
}
