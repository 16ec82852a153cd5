package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/engine"
)

func TestMedianIsTheMiddleAndTheMeanOfTwo(t *testing.T) {
	if got := spreadOf([]float64{3, 1, 2}); got != (spread{Median: 2, Min: 1, Max: 3}) {
		t.Errorf("three values: %+v", got)
	}
	if got := spreadOf([]float64{4, 1, 2, 3}); got != (spread{Median: 2.5, Min: 1, Max: 4}) {
		t.Errorf("four values: %+v", got)
	}
}

func TestHistogramIsWithinAHundredAndTwentyEighth(t *testing.T) {
	var all, half histogram
	for i := range 100_000 {
		latency := time.Duration(i+1) * 7919 * time.Nanosecond
		if all.add(latency); i%2 == 0 {
			half.add(latency)
		}
	}
	for _, share := range []float64{0.01, 0.5, 0.99, 0.9999} {
		want := share * 100_000 * 7919 / 1e6
		if got := all.millis(share); got < want || got > want*(1+1.0/128) {
			t.Errorf("quantile %v: %v ms, want %v or up to 1/128 more", share, got, want)
		}
	}
	half.merge(&all)
	if half.total != 150_000 {
		t.Errorf("150,000 latencies were added, %d counted", half.total)
	}
	if got := new(histogram).millis(0.5); got != 0 {
		t.Errorf("median of none: %v", got)
	}
}

func TestHistogramTakesAnyLatency(t *testing.T) {
	for _, nanos := range []uint64{0, 1, 127, 128, 255, 256, 257, 1<<40 + 12345, 1<<63 - 1} {
		bucket := bucketOf(nanos)
		if up := upper(bucket); up < nanos || bucket > 0 && upper(bucket-1) >= nanos {
			t.Errorf("%d ns lies in bucket %d, which ends at %d after %d", nanos, bucket, up, upper(max(bucket-1, 0)))
		}
	}
}

func TestRatiosAreOfMediansWithTheSpreadOfRounds(t *testing.T) {
	at := func(rates ...int) *row {
		var all []*measure
		for round, records := range rates {
			all = append(all, &measure{Round: round, Records: records, Seconds: 1})
		}
		return &row{measures: all}
	}
	got := at(90, 9, 60).over(at(100, 10, 30), "", (*measure).perSecond)
	if got == nil || got.Value != (spread{Median: 2, Min: 0.9, Max: 2}) {
		t.Errorf("%+v", got)
	}
	if got := at(1).over(nil, "", (*measure).perSecond); got != nil {
		t.Errorf("over nothing: %+v", got)
	}
}

func TestCPUAndMemoryOfThisProcessAreRead(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	after := before
	for begin := time.Now(); after == before && time.Since(begin) < 10*time.Second; { // until a tick of work was done
		if after, err = cpuOf(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if after <= before {
		t.Errorf("CPU time %v, then %v after ten seconds of work", before, after)
	}
	if mb, err := residentMB(os.Getpid()); err != nil || mb < 1 {
		t.Errorf("%v MB: %v", mb, err)
	}
}

func TestHostileGuestsEndAtOneFuel(t *testing.T) {
	e, err := engine.New(t.Context(), engine.Config{Gate: engine.NewGate(0)})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []plugins.Reason{plugins.ReasonFuel, plugins.ReasonDepth, plugins.ReasonFuel} {
		g := hostileGuestList()[i]
		out, err := g.run(t.Context(), e, 0)
		if err != nil {
			t.Errorf("%s: %v", g.name, err)
			continue
		}
		if out.reason != want.String() || out.fuel[0] == 0 || out.fuel[0] != out.fuel[1] {
			t.Errorf("%s: ended by %s, want %s, at %v", g.name, out.reason, want, out.fuel)
		}
	}
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRawJudgingCallsTheGuest(t *testing.T) {
	if nanos, err := rawJudging(t.Context(), 100); err != nil || nanos <= 0 {
		t.Errorf("%v ns: %v", nanos, err)
	}
}

func TestAControlThatMovedIsDoubted(t *testing.T) {
	with := func(scenario string, disk float64) *measure {
		return &measure{Scenario: scenario, Controls: controls{SyncMillis: 1, DiskMB: disk, CopyMB: 1, CRCMB: 1, LoopMB: 1}}
	}
	if got := doubtOf([]*measure{with("produce-1p", 100), with("produce-1p", 120)}); got != "" {
		t.Errorf("a fifth is within bounds: %s", got)
	}
	if got := doubtOf([]*measure{with("produce-1p", 100), with("produce-1p", 130)}); got == "" {
		t.Error("a third is not")
	}
	if got := doubtOf([]*measure{with("consume-1p", 100), with("consume-1p", 130)}); got != "" {
		t.Errorf("reading does not wait for the disk: %s", got)
	}
}

// fixed is a system that does not start.
type fixed struct{ external }

func (f *fixed) Start(context.Context) (time.Time, error) {
	return time.Time{}, errors.New("not today")
}

func TestSystemsTakeTurnsWithinARound(t *testing.T) {
	b := &bench{settings: settings{rounds: 2, sizes: []int{1024, 100}, scenarios: []string{"load", "sync", "idle"}}}
	for _, name := range []string{"millrace", "kafka"} {
		b.systems = append(b.systems, &fixed{external{name: name}})
	}
	var turns []string
	_ = b.each(func(v *visit, i *itinerary) error { // f never fails
		turns = append(turns, fmt.Sprintf("%d %d %s %d", v.at.Round, v.at.Size, v.system.Name(), len(b.chosen(i, v.at.Size))))
		return nil
	})
	want := []string{
		"0 1024 millrace 2", "0 1024 kafka 2", "0 100 millrace 1", "0 100 kafka 1", "0 1024 millrace 1", "0 1024 kafka 1",
		"1 1024 millrace 2", "1 1024 kafka 2", "1 100 millrace 1", "1 100 kafka 1", "1 1024 millrace 1", // a peer is idle once
	}
	if !slices.Equal(turns, want) {
		t.Errorf("turns %q, want %q", turns, want)
	}
}

func TestAFailedVisitDoesNotEndTheRun(t *testing.T) {
	saved := 0
	b := &bench{
		settings: settings{rounds: 1, sizes: []int{100}, scenarios: []string{"load"}}, work: t.TempDir(), log: io.Discard,
		systems: []system{&fixed{external{name: "nobody"}}, &fixed{external{name: "either"}}},
		save:    func() error { saved++; return nil },
	}
	b.partitions = []int{1}
	if err := b.all(t.Context()); err == nil || len(b.failures) != 2 || saved != 2 {
		t.Errorf("%v; failures %q, saved %d times", err, b.failures, saved)
	}
}

func TestReachSaysWhatIsMetAndWhatWasNotMeasured(t *testing.T) {
	rest := controls{SyncMillis: 0.2, DiskMB: 1, CopyMB: 1, CRCMB: 1, LoopMB: 1}
	b := &bench{}
	for round := range 3 {
		b.measures = append(b.measures,
			measure{System: "millrace", Scenario: "produce-1p", Size: 1024, Round: round, Records: 130, Seconds: 1, BrokerCPUSeconds: 1, Controls: rest},
			measure{System: "kafka", Scenario: "produce-1p", Size: 1024, Round: round, Records: 100, Seconds: 1, BrokerCPUSeconds: 1, Controls: rest},
			measure{System: "millrace", Scenario: "sync-1", Size: 1024, Round: round, P50Millis: 0.34, Controls: rest},
			measure{System: "kfake", Scenario: "sync-1", Size: 1024, Round: round, P50Millis: 0.1, Controls: rest})
	}
	want := map[string]bool{
		"produce-1p, 1024 B: records/s, over Kafka ≥ 1.3":                             true,
		"produce-1p, 1024 B: broker CPU a record, over Kafka ≤ 0.45":                  false,
		"sync-1, 1024 B: p50 beyond one fdatasync of 4 KiB and kfake's p50 ≤ 0.05 ms": true,
	}
	for _, x := range newReport(b, nil).Reach {
		met, measured := want[x.Target]
		if x.Absent == measured || x.Met != met {
			t.Errorf("%s: %+v", x.Target, x)
		}
		delete(want, x.Target)
	}
	for target := range want {
		t.Errorf("no target %q", target)
	}
}

func TestClustersAreHeldToBoundsOfTheirOwn(t *testing.T) {
	b := &bench{settings: settings{cluster: true}}
	for round, gap := range []float64{0.9, 1.1, 2.6} {
		b.measures = append(b.measures,
			measure{System: "millrace", Scenario: "r3-produce-1p", Size: 1024, Round: round, Records: 160, Seconds: 1, BrokerCPUSeconds: 1},
			measure{System: "kafka", Scenario: "r3-produce-1p", Size: 1024, Round: round, Records: 100, Seconds: 1, BrokerCPUSeconds: 2},
			measure{System: "millrace", Scenario: "r3-kill-leader", Size: 1024, Round: round, Seconds: gap},
			measure{System: "millrace", Scenario: "r3-cut-leader", Size: 1024, Round: round, Seconds: 2 * gap},
			measure{System: "millrace", Scenario: "r3-catchup", Size: 1024, Round: round, Records: 60, Seconds: 1},
			measure{System: "millrace", Scenario: "r3-catchup-raw", Size: 1024, Round: round, Records: 100, Seconds: 1})
	}
	want := map[string]bool{
		"r3-produce-1p, 1024 B: records/s, over Kafka ≥ 1.5":             true,
		"r3-produce-1p, 1024 B: brokers' CPU a record, over Kafka ≤ 0.6": true,
		"r3-kill-leader: median ≤ 1.2 s":                                 true,
		"r3-kill-leader: longest ≤ 2.5 s":                                false,
		"r3-cut-leader: median ≤ 2.5 s":                                  true,
		"r3-catchup: MB/s, over a raw stream beside the same load ≥ 0.5": true,
	}
	for _, x := range newReport(b, nil).Reach {
		met, measured := want[x.Target]
		if x.Absent == measured || x.Met != met {
			t.Errorf("%s: %+v", x.Target, x)
		}
		delete(want, x.Target)
	}
	for target := range want {
		t.Errorf("no target %q", target)
	}
}

func TestEveryScenarioOfAClusterCanBeChosen(t *testing.T) {
	s := settings{cluster: true, rounds: 1}
	if err := s.parse(&texts{sizes: "1024", partitions: "1", scenarios: strings.Join(names(trioItineraries()), ",")}); err != nil {
		t.Error(err)
	}
	if err := s.parse(&texts{sizes: "1024", partitions: "1", scenarios: "load"}); err == nil {
		t.Error("a scenario of single brokers was taken")
	}
}
