package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"runtime/metrics"
	"text/tabwriter"
	"time"

	"github.com/millrace-io/millrace/internal/task"
	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/engine"
	"github.com/millrace-io/millrace/plugins/meter"
)

const (
	hostileFor = 2 * time.Second // how long each guest is run again and again
	// hostileFuel is a record's budget: about a tenth of a second of a loop.
	hostileFuel = 100_000_000
)

// hostileGuest is a plugin that never comes back by itself. process is the body of millrace_process.
type hostileGuest struct {
	name    string
	process []byte
}

// hostileGuestList is an endless loop, an endless recursion, and an endless loop of filling all 16 MiB of memory.
func hostileGuestList() []hostileGuest {
	return []hostileGuest{
		{"an endless loop", []byte{0x03, 0x40, 0x0C, 0, 0x0B, 0x00}}, // loop; br 0; end; unreachable
		{"an endless recursion", []byte{0x20, 0, 0x20, 1, 0x10, 2}},  // process(local 0, local 1)
		{"an endless loop of 16 MiB fills", []byte{0x03, 0x40, 0x41, 0, 0x41, 7, 0x41, 0x80, // loop; memory.fill(0, 7, 1<<24)
			0x80, 0x80, 0x08, 0xFC, 0x0B, 0, 0x0C, 0, 0x0B, 0x00}},
	}
}

// module is the guest as a WebAssembly module with 16 MiB of memory, not metered.
func (g hostileGuest) module() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, count byte, body ...byte) {
		out = append(out, id, byte(len(body)+1), count)
		out = append(out, body...)
	}
	section(1, 3, 0x60, 0, 1, 0x7F, 0x60, 1, 0x7F, 1, 0x7F, 0x60, 2, 0x7F, 0x7F, 1, 0x7E)
	section(3, 3, 0, 1, 2)
	section(5, 1, 0, 0x80, 2) // 256 pages
	var exports []byte
	for i, name := range []string{abi.ExportMemory, abi.ExportVersion, abi.ExportAlloc, abi.ExportProcess} {
		kind, index := byte(0), byte(i-1)
		if i == 0 {
			kind, index = 2, 0
		}
		exports = append(append(append(exports, byte(len(name))), name...), kind, index)
	}
	section(7, 4, exports...)
	var bodies []byte
	for _, body := range [][]byte{{0x41, 1}, {0x41, 0x80, 0x20}, g.process} { // version 1; room at 4,096
		bodies = append(append(append(bodies, byte(len(body)+2), 0), body...), 0x0B)
	}
	section(10, 3, bodies...)
	return out
}

// ended is what became of a guest.
type ended struct {
	name      string
	reason    string
	fuel      [2]uint64 // of the first two runs
	runs      int
	longest   time.Duration // run
	pauses    pauses
	differing int // runs whose fuel was not the first's
}

// hostileGuests runs the guests one after the other beside a load, and prints what they did to the collector. For
// comparison it runs a Go loop in their place.
func hostileGuests(ctx context.Context, w io.Writer) error {
	e, err := engine.New(ctx, engine.Config{Gate: engine.NewGate(0)})
	if err != nil {
		return err
	}
	all := []*ended{}
	native, err := besideLoad(ctx, func(ctx context.Context) (*ended, error) { return spin(ctx), nil })
	if err != nil {
		return errors.Join(err, e.Close(ctx))
	}
	all = append(all, native)
	for _, g := range hostileGuestList() {
		found, err := besideLoad(ctx, func(ctx context.Context) (*ended, error) { return g.run(ctx, e, hostileFor) })
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", g.name, err), e.Close(ctx))
		}
		all = append(all, found)
	}
	printGuests(w, all)
	return e.Close(ctx)
}

// run judges one record with the guest, at least twice, and again and again until span is over.
func (g hostileGuest) run(ctx context.Context, e *engine.Engine, span time.Duration) (out *ended, err error) {
	limits := plugins.DefaultLimits()
	limits.RecordFuel = hostileFuel
	metered, _, err := meter.Admit(g.module(), limits)
	if err != nil {
		return nil, err
	}
	m, err := e.Load(ctx, metered, engine.StageConfig{Projection: abi.ProjectKey, Limits: limits})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close(ctx)) }()
	frame := &abi.Frame{Projection: abi.ProjectKey, Records: []abi.Record{{Key: []byte("key")}}}
	out = &ended{name: g.name}
	for begin := time.Now(); time.Since(begin) < span || out.runs < 2; out.runs++ {
		started := time.Now()
		_, err := m.Judge(ctx, frame, new(abi.Answer))
		out.longest = max(out.longest, time.Since(started))
		var fault *plugins.Fault
		if !errors.As(err, &fault) {
			return nil, fmt.Errorf("judged a record with %v, want a fault", err)
		}
		if out.runs < 2 {
			out.fuel[out.runs] = fault.Fuel
		}
		if fault.Fuel != out.fuel[0] {
			out.differing++
		}
		out.reason = fault.Reason.String()
	}
	return out, nil
}

// spin is a loop in Go, which the runtime preempts by itself.
func spin(ctx context.Context) *ended {
	out := &ended{name: "a loop in Go, for comparison", reason: "time", runs: 1}
	begin := time.Now()
	for x := uint64(1); time.Since(begin) < hostileFor && ctx.Err() == nil; {
		for range 1 << 24 {
			x = x*6364136223846793005 + 1
		}
		runtime.KeepAlive(x)
	}
	out.longest = time.Since(begin)
	return out
}

// besideLoad runs work while one goroutine allocates and another collects, and adds what the collector did.
func besideLoad(ctx context.Context, work func(ctx context.Context) (*ended, error)) (*ended, error) {
	group := task.NewGroup(ctx)
	defer func() { _ = group.Wait() }() // its members return no errors
	defer group.Stop()
	group.Go("allocate", func(ctx context.Context) error {
		kept := make([][]byte, 4096)
		for i := 0; ctx.Err() == nil; i++ {
			kept[i%len(kept)] = make([]byte, 1+i%8192)
		}
		return nil
	})
	before := readPauses()
	var collected time.Duration
	collector := task.NewGroup(group.Context())
	collector.Go("collect", func(ctx context.Context) error {
		for ctx.Err() == nil {
			begin := time.Now()
			runtime.GC()
			collected = max(collected, time.Since(begin))
		}
		return nil
	})
	out, err := work(ctx)
	collector.Stop()
	if err := errors.Join(err, collector.Wait()); err != nil {
		return nil, err
	}
	out.pauses = readPauses().since(before)
	out.pauses.collected = collected
	return out, nil
}

// pauses are the runtime's own histograms of the collector's pauses.
type pauses struct {
	total, stopping  *metrics.Float64Histogram
	longest, stopped time.Duration // upper bounds of the highest buckets with a pause in them
	collections      uint64
	collected        time.Duration // the longest runtime.GC from call to return
}

func readPauses() pauses {
	samples := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}, {Name: "/sched/pauses/stopping/gc:seconds"}}
	metrics.Read(samples)
	return pauses{total: samples[0].Value.Float64Histogram(), stopping: samples[1].Value.Float64Histogram()}
}

// since keeps what was added after before.
func (p pauses) since(before pauses) pauses {
	p.longest, p.collections = highest(p.total, before.total)
	p.stopped, _ = highest(p.stopping, before.stopping)
	return p
}

// highest returns the upper bound of the highest bucket that gained since before, and how many pauses were added.
func highest(now, before *metrics.Float64Histogram) (time.Duration, uint64) {
	var top float64
	var count uint64
	for i, n := range now.Counts {
		if more := n - before.Counts[i]; more > 0 {
			count += more
			if top = now.Buckets[i+1]; math.IsInf(top, 1) {
				top = now.Buckets[i]
			}
		}
	}
	return time.Duration(top * float64(time.Second)), count
}

func printGuests(w io.Writer, all []*ended) {
	fmt.Fprintf(w, "%s, %d CPUs; each guest beside a goroutine that allocates and one that collects without a break, for %v;\n"+
		"a record's budget is %d, a slice %d fuel\n\n", runtime.Version(), runtime.NumCPU(), hostileFor, hostileFuel, plugins.DefaultLimits().SliceFuel)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "guest\tended by\tfuel, first run\tsecond run\truns\tdiffering\tlongest run ms\tlongest pause µs\tof it stopping µs\tlongest runtime.GC ms\tpauses\t")
	for _, x := range all {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%.1f\t%d\t%d\t%.1f\t%d\t\n", x.name, x.reason, x.fuel[0], x.fuel[1], x.runs, x.differing,
			x.longest.Seconds()*1000, x.pauses.longest.Microseconds(), x.pauses.stopped.Microseconds(),
			x.pauses.collected.Seconds()*1000, x.pauses.collections)
	}
	flush(table)
}
