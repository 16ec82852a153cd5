package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/internal/process"
	"github.com/millrace-io/millrace/internal/task"
)

const (
	hostileShare   = 0.2 // of the peak
	hostileTurns   = 3   // of each guest in a round
	hostileTopic   = "quiet"
	hostileWindow  = 10 * time.Second
	memoryDisk     = "/dev/shm"
	hostilePeak    = 10 * time.Second
	hostileRecords = 100_000 // more than a guest that burns its budget judges in a window
	poisonRecords  = 1_000
)

// quietConfigs keep the load's topic to some hundred MiB of memory, in segments small enough that to reserve and to remove
// one takes no time that would be seen.
var quietConfigs = map[string]string{"retention.bytes": "50331648", "segment.bytes": "16777216"}

// retentionKeys have it kept to that twice a second.
var retentionKeys = []string{"--log-retention-check-interval-ms", "500"}

// misdeeds are what the guest does to a record, by the first byte of its key: see the folder plugin.
var misdeeds = []struct {
	name    string
	mark    byte
	records int
}{{"never", 'N', hostileRecords}, {"burn", 'B', hostileRecords}, {"poison", 'P', poisonRecords}}

// hostilePart loads six partitions at a fifth of the peak, on memory instead of a disk, and in every other window a
// hostile guest judges another topic. Each guest has its turn again and again, and a loop in Go has one as often.
func hostilePart(ctx context.Context, v *visit) (err error) {
	m, ok := v.system.(*millrace)
	if !ok {
		return nil
	}
	dir, err := os.MkdirTemp(memoryDisk, "millrace-bench-")
	if err != nil {
		return fmt.Errorf("hostile guests need %s: %w", memoryDisk, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	h := &hostile{visit: v, broker: newMillrace(workshop{root: m.home.root, runs: dir}, slices.Concat(m.keys, retentionKeys))}
	if err := h.build(ctx); err != nil {
		return err
	}
	if _, err := h.broker.Start(ctx); err != nil {
		return errors.Join(err, h.broker.Stop())
	}
	defer func() { err = errors.Join(err, h.broker.Stop()) }()
	if err := h.prepare(ctx); err != nil {
		return err
	}
	for turn := range h.turns() {
		if err := h.turn(ctx, turn); err != nil {
			return err
		}
	}
	return nil
}

// hostile is one such run.
type hostile struct {
	*visit
	broker  *millrace
	control string
	rate    float64 // records per second
	made    int     // topics
}

func (h *hostile) turns() int            { return max(hostileTurns/h.shorter, 1) }
func (h *hostile) window() time.Duration { return hostileWindow / time.Duration(h.shorter) }

// build makes the host program, which takes the place of `millrace run`.
func (h *hostile) build(ctx context.Context) error {
	if err := process.FreeAddresses(&h.control); err != nil {
		return err
	}
	program := h.broker.home.bin("host")
	h.broker.run = []string{program, "--control", h.control}
	return h.broker.home.build(ctx, h.broker.home.root, program, "./"+filepath.Join("internal", "bench", "host"))
}

// prepare uploads the guest and finds the peak. The guest stays bound to a harmless topic, so that no window pays for
// compiling it.
func (h *hostile) prepare(ctx context.Context) error {
	if err := h.broker.pushGuest(ctx); err != nil {
		return err
	}
	const harmless = "harmless"
	if err := h.fill(ctx, harmless, 'h', 1); err != nil {
		return err
	}
	d := kafkaDriver{address: h.broker.client}
	if err := h.broker.Bind(ctx, harmless, harmless, guestChain()); err != nil {
		return err
	}
	if err := d.Consume(ctx, load{topic: harmless, partitions: 1, records: 1, size: len("h0"), group: harmless}); err != nil {
		return err
	}
	if err := h.broker.CreateTopic(ctx, hostileTopic, 6, quietConfigs); err != nil {
		return err
	}
	peak, err := d.peak(ctx, hostileTopic, h.at.Size, hostilePeak/time.Duration(h.shorter))
	if err != nil {
		return err
	}
	h.rate = hostileShare * peak
	fmt.Fprintf(h.log, "peak beside hostile guests: %.0f records/s\n", peak)
	return nil
}

// turn runs each guest once, and a loop in Go.
func (h *hostile) turn(ctx context.Context, turn int) error {
	for _, deed := range misdeeds {
		h.made++
		topic := fmt.Sprintf("%s-%d", deed.name, h.made)
		if err := h.fill(ctx, topic, deed.mark, deed.records); err != nil {
			return err
		}
		if err := h.pair(ctx, deed.name, func(ctx context.Context) error { return h.judged(ctx, topic) }); err != nil {
			return fmt.Errorf("turn %d: %w", turn+1, err)
		}
	}
	return h.pair(ctx, "spin", h.spin)
}

// fill writes marked records into a new topic of one partition.
func (h *hostile) fill(ctx context.Context, topic string, mark byte, count int) error {
	d := kafkaDriver{address: h.broker.client}
	if err := d.CreateTopic(ctx, topic, 1); err != nil {
		return err
	}
	client, err := d.producer(topic)
	if err != nil {
		return err
	}
	defer client.Close()
	all := make([]*kgo.Record, count)
	for i := range all {
		all[i] = &kgo.Record{Key: fmt.Appendf([]byte{mark}, "%d", i)}
	}
	return client.ProduceSync(ctx, all...).FirstErr()
}

// pair measures a window without the deed and one with it.
func (h *hostile) pair(ctx context.Context, name string, deed func(context.Context) error) error {
	var off, on measure
	var err error
	if off, err = h.measured(ctx, "guest-"+name+"-off", func(context.Context) error { return nil }); err != nil {
		return err
	}
	if on, err = h.measured(ctx, "guest-"+name+"-on", deed); err != nil {
		return err
	}
	on.AddedP99Millis = on.P99Millis - off.P99Millis
	h.keep(off)
	h.keep(on)
	return nil
}

// measured is one window, with what the deed does beside the load.
func (h *hostile) measured(ctx context.Context, scenario string, deed func(context.Context) error) (m measure, err error) {
	m = h.at
	m.Scenario = scenario
	profile := h.profileOf(ctx, h.broker, m)
	defer func() { err = errors.Join(err, profile.Wait()) }()
	calls, err := h.broker.GuestCalls(ctx)
	if err != nil {
		return m, err
	}
	if _, err := h.pauses(ctx); err != nil { // those before
		return m, err
	}
	group := task.NewGroup(ctx)
	group.Go("deed", deed)
	used, err := startUsage(h.broker.Processes())
	if err != nil {
		return m, errors.Join(err, group.Wait())
	}
	found, err := kafkaDriver{address: h.broker.client}.openLoop(ctx, hostileTopic, h.at.Size, h.rate, h.window())
	if err != nil {
		return m, errors.Join(err, group.Wait())
	}
	if err := errors.Join(used.stop(&m), group.Context().Err()); err != nil {
		return m, errors.Join(err, group.Wait())
	}
	group.Stop()
	if err := group.Wait(); err != nil {
		return m, err
	}
	m.Records, m.Seconds, m.P50Millis, m.P99Millis, m.LateP99Millis = found.Records, found.Seconds, found.P50, found.P99, found.LateP99
	pause, err := h.pauses(ctx)
	if err != nil {
		return m, err
	}
	after, err := h.broker.GuestCalls(ctx)
	calls = after - calls
	m.PauseMillis, m.GuestCalls = &pause, &calls
	return m, err
}

// judged binds the guest to the topic, reads through it until the window ends, and unbinds it.
func (h *hostile) judged(ctx context.Context, topic string) (err error) {
	group := "victim-of-" + topic
	if err := h.broker.Bind(ctx, group, topic, guestChain()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.unbind(group, topic)) }()
	client, err := kgo.NewClient(kgo.SeedBrokers(h.broker.client), kgo.ConsumeTopics(topic), kgo.Rack("group="+group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer client.Close()
	for ctx.Err() == nil {
		client.PollFetches(ctx)
	}
	return nil
}

// unbind works after the window has ended.
func (h *hostile) unbind(group, topic string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return h.broker.Unbind(ctx, group, topic)
}

// guestChain is the folder plugin alone.
func guestChain() *adminapi.ChainSpec {
	return &adminapi.ChainSpec{Stages: []*adminapi.Stage{{Plugin: guestName}}}
}

// pauses is the highest bucket of the time that stopping the world for the collector took, since it was last asked.
func (h *hostile) pauses(ctx context.Context) (millis float64, err error) {
	highest := map[string]float64{}
	err = h.ask(ctx, http.MethodGet, "/pauses", func(response *http.Response) error {
		return json.NewDecoder(response.Body).Decode(&highest)
	})
	return highest["/sched/pauses/stopping/gc:seconds"] * 1000, err
}

// spin has the host loop in Go for a window.
func (h *hostile) spin(ctx context.Context) error {
	return h.ask(ctx, http.MethodPost, "/spin?for="+h.window().String(), func(*http.Response) error { return nil })
}

func (h *hostile) ask(ctx context.Context, method, path string, read func(*http.Response) error) (err error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+h.control+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the host: %w", err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the host answered %s", response.Status)
	}
	return read(response)
}
