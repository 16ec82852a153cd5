package delivery

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/broker"
)

// endsAt is a log of which only the end is known.
type endsAt struct {
	Source
	end broker.Offset
}

func (s endsAt) Ends() Ends { return Ends{LastStable: s.end} }

func TestJudgingGivesWayToWhoReadsFarBehindOnHistory(t *testing.T) {
	const judged, end = 10 * aheadOffsets, 20 * aheadOffsets
	for name, trial := range map[string]struct {
		reads []broker.Offset // one each 4 ms
		end   broker.Offset
		want  time.Duration // from the last read on
	}{
		"nobody reads":                     {end: end},
		"a reader far behind":              {reads: []broker.Offset{0}, end: end, want: readerAway},
		"a reader that follows":            {reads: []broker.Offset{judged - aheadOffsets}, end: end},
		"one that follows, and one behind": {reads: []broker.Offset{judged - 5, 0, 9}, end: end},
		"near the end of the log":          {reads: []broker.Offset{0}, end: judged + aheadOffsets - 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Hour)
			tr := &track{source: endsAt{end: trial.end}, end: forever, judged: judged, pace: pace{bell: newBell()}}
			for i, at := range trial.reads {
				if i > 0 {
					time.Sleep(4 * time.Millisecond)
				}
				tr.pace.read(at)
			}
			began := time.Now()
			tr.giveWay(t.Context())
			if took := time.Since(began); took != trial.want {
				t.Errorf("%s: judging waited %v, want %v", name, took, trial.want)
			}
		})
	}
}

// One Fetch brings a megabyte of each partition, and the reader is back at this one when it is through with all of them.
func TestAReaderOfManyPartitionsIsNotTakenForAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour)
		tr := &track{source: endsAt{}, opened: true, end: forever, pace: pace{bell: newBell()}, kept: kept{node: new(atomic.Int64)}}
		tr.pace.read(0)
		s, released := keptSlice(t, 0, 1, 100)
		if !tr.kept.add(0, 10, s) {
			t.Fatal("not kept")
		}
		for range 10 {
			time.Sleep(100 * time.Millisecond)
			if _, err := tr.step(t.Context()); err != nil {
				t.Fatal(err)
			}
			tr.pace.read(0)
		}
		if released.Load() != 0 {
			t.Fatal("what was kept for the reader is gone when it comes")
		}
		time.Sleep(readerAway)
		if _, err := tr.step(t.Context()); err != nil || released.Load() != 1 {
			t.Fatalf("kept for a reader that went away: %v", err)
		}
	})
}

func TestJudgingGoesOnWhenAReaderComesOrATask(t *testing.T) {
	for name, wake := range map[string]func(tr *track){
		"reader": func(tr *track) { tr.pace.read(tr.judged) },
		"task": func(tr *track) {
			go func() { _ = tr.ask(context.Background(), func(context.Context) error { return nil }) }()
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			tr := &track{
				source: endsAt{end: forever}, end: forever, judged: 10 * aheadOffsets, bell: newBell(), asked: newBell(),
				pace: pace{bell: newBell()},
			}
			tr.pace.read(0)
			began := time.Now()
			go func() {
				time.Sleep(time.Millisecond)
				wake(tr)
			}()
			tr.giveWay(t.Context())
			if took := time.Since(began); took != time.Millisecond {
				t.Errorf("%s: judging waited %v", name, took)
			}
			for _, task := range tr.takeTasks() {
				task(t.Context())
			}
		})
	}
}
