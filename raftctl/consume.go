package raftctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/sdk"
)

// consumeFlags are the flags of consume.
type consumeFlags struct {
	group        string
	from         string
	count        int
	format       string
	stopAfter    time.Duration
	requireChain bool
}

func (c *cli) consumeCommand() *cobra.Command {
	var f consumeFlags
	cmd := &cobra.Command{
		Use:   "consume TOPIC ... [-g GROUP] [--from start|end|OFFSET|@TIME] [-n N] [-f FORMAT | -o ndjson]",
		Short: "Print records, through the group's chain if one is bound",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || slices.Contains(args, "") {
				return usageError("consume: name at least one topic or view")
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&f.group, "group", "g", "", "consume as a member of this group, and commit what was printed")
	cmd.Flags().StringVar(&f.from, "from", "start", "where to begin without a commit: start, end, an offset, or @TIME")
	cmd.Flags().IntVarP(&f.count, "count", "n", 0, "end after this many records (0: go on)")
	cmd.Flags().StringVarP(&f.format, "format", "f", "", `how a record is printed (default '%v\n')`)
	cmd.Flags().DurationVar(&f.stopAfter, "idle", 0, "end when nothing came for this long (0: go on)")
	cmd.Flags().BoolVar(&f.requireChain, "require-chain", false, "refuse to read raw if no chain is bound to the group (QUIC)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.consume(cmd.Context(), args, f) }
	return cmd
}

// poller is what both kinds of reading have.
type poller struct {
	kafka  *kgo.Client
	poll   func(ctx context.Context, most int) ([]*sdk.Record, error) // most 0: no limit
	commit func(ctx context.Context) error
	close  func() error
}

func (c *cli) consume(ctx context.Context, topics []string, f consumeFlags) error {
	text := f.format
	if text == "" {
		text = `%v\n`
	}
	parsed, err := parseFormat(text)
	if err != nil {
		return err
	}
	if f.count < 0 || f.stopAfter < 0 {
		return usageError("consume: --count and --idle count upwards from 0, which is without end")
	}
	if c.forPrograms() && f.format != "" {
		return usageError("consume: choose -f or -o %s", c.form)
	}
	p, err := c.poller(topics, f)
	if err != nil {
		return err
	}
	if _, err := c.checkTopics(ctx, p.kafka, topics...); err != nil {
		return errors.Join(err, p.close())
	}
	out := bufio.NewWriter(c.out)
	printed := 0
	var line []byte
	show := func(r *sdk.Record) error {
		printed++
		if c.forPrograms() {
			return c.item(out, toJSON(r))
		}
		line = parsed.append(line[:0], r)
		_, err := out.Write(line)
		return err
	}
	err = c.consumeLoop(ctx, p, f, &printed, func(records []*sdk.Record) error {
		for _, r := range records {
			if err := show(r); err != nil {
				return err
			}
		}
		return out.Flush()
	})
	return errors.Join(err, p.close())
}

// consumeLoop polls, prints and commits until the count is reached, nothing comes any more, or ctx ends.
func (c *cli) consumeLoop(ctx context.Context, p *poller, f consumeFlags, printed *int, show func([]*sdk.Record) error) error {
	for {
		pollCtx, cancel := ctx, context.CancelFunc(func() {})
		if f.stopAfter > 0 {
			pollCtx, cancel = context.WithTimeout(ctx, f.stopAfter)
		}
		most := 0
		if f.count > 0 {
			most = f.count - *printed
		}
		records, err := p.poll(pollCtx, most)
		idle := pollCtx.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return nil // Interrupted: what was printed is committed already.
		}
		if err != nil && !idle {
			return err
		}
		if err := show(records); err != nil {
			return err
		}
		if err := p.commit(ctx); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		if idle && len(records) == 0 || f.count > 0 && *printed >= f.count {
			return nil
		}
	}
}

func (c *cli) poller(topics []string, f consumeFlags) (*poller, error) {
	start, err := startOffset(f.from)
	if err != nil {
		return nil, err
	}
	opts := []kgo.Opt{kgo.ConsumeResetOffset(start)}
	if f.count > 0 {
		opts = append(opts, kgo.MaxConcurrentFetches(1))
	}
	if f.group == "" {
		client, err := c.client(sdk.WithKafka(append(opts, kgo.ConsumeTopics(topics...))...))
		if err != nil {
			return nil, err
		}
		return &poller{
			kafka: client.Kafka(),
			poll: func(ctx context.Context, most int) ([]*sdk.Record, error) {
				fetches := client.Kafka().PollRecords(ctx, most)
				return fetches.Records(), fetches.Err()
			},
			commit: func(context.Context) error { return nil },
			close:  client.Close,
		}, nil
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	more := []sdk.ConsumerOption{sdk.ConsumeWith(opts...)}
	if f.requireChain {
		more = append(more, sdk.RequireChain())
	}
	consumer, err := client.Consume(f.group, topics, more...)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return &poller{
		kafka:  consumer.Kafka(),
		poll:   consumer.PollUpTo,
		commit: consumer.Commit,
		close:  func() error { return errors.Join(consumer.Close(), client.Close()) },
	}, nil
}

func startOffset(from string) (kgo.Offset, error) {
	switch {
	case from == "start":
		return kgo.NewOffset().AtStart(), nil
	case from == "end":
		return kgo.NewOffset().AtEnd(), nil
	case strings.HasPrefix(from, "@"):
		ms, err := timeMillis(from[1:])
		return kgo.NewOffset().AfterMilli(ms), err
	}
	offset, err := strconv.ParseInt(from, 10, 64)
	if err != nil || offset < 0 {
		return kgo.NewOffset(), usageError("--from %q is none of start, end, an offset, @TIME", from)
	}
	return kgo.NewOffset().At(offset), nil
}
