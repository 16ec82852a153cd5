package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/batch"
)

func TestCommitWatchNoticesCommitsThatGoBack(t *testing.T) {
	begun := time.Now()
	for _, c := range []struct {
		name                   string
		acknowledged, answered map[int32]int64
		problems               int
	}{
		{"grows", map[int32]int64{0: 7}, map[int32]int64{0: 8, 1: 1}, 0},
		{"is acknowledged and stays", map[int32]int64{0: 7}, map[int32]int64{0: 7}, 0},
		{"lower than an earlier answer", map[int32]int64{0: 5}, map[int32]int64{0: 6}, 1},
		{"lower than what was acknowledged", map[int32]int64{0: 9}, map[int32]int64{0: 8}, 1},
		{"none any more", nil, nil, 1},
	} {
		var w commitWatch
		w.judge(begun, "g", map[int32]int64{}, map[int32]int64{})
		w.judge(begun, "g", map[int32]int64{0: 5}, map[int32]int64{0: 7})
		w.judge(begun, "other", map[int32]int64{}, map[int32]int64{0: 1})
		w.judge(begun, "g", c.acknowledged, c.answered)
		if len(w.problems) != c.problems {
			t.Errorf("%s: complaints %q; want %d", c.name, w.problems, c.problems)
		}
	}
}

func TestUnlikeNoticesReplicasThatDiffer(t *testing.T) {
	log := func(values ...string) (all []batch.View) {
		for i, v := range values {
			b := batch.NewBuilder(batch.Spec{BaseOffset: broker.Offset(i), LeaderEpoch: 3})
			if err := b.Append(batch.Record{Value: []byte(v)}); err != nil {
				t.Fatal(err)
			}
			raw, err := b.Finish()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, bytes.Clone(raw))
		}
		return all
	}
	later := log("a", "b")
	later[1].Stamp(1, 4)
	for _, c := range []struct {
		name  string
		other []batch.View
		want  string
	}{
		{"alike", log("a", "b"), ""},
		{"one is missing", log("a"), "2 batches on node 1 and 1 on node 3"},
		{"another record", log("a", "c"), "batch 1 is"},
		{"another leader epoch", later, "leader epoch 4"},
	} {
		got := strings.Join(unlike("p", [clusterSize][]batch.View{log("a", "b"), log("a", "b"), c.other}), "; ")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestGapsAreOfOnePartitionAndCountWhileTheyLast(t *testing.T) {
	var l ledger
	begun := time.Now()
	at := func(seconds int) time.Time { return begun.Add(time.Duration(seconds) * time.Second) }
	for second := range 10 {
		l.beats[0].onAck(at(second))
	}
	l.beats[1].onAck(at(0))
	l.beats[1].onAck(at(4))
	l.beats[1].onAck(at(9))
	if p, is := l.silent(at(4)); !is || p != 2 {
		t.Errorf("partition %d is silent: %v, want the one that never spoke", p, is)
	}
	l.beats[2].onAck(at(9))
	if p, is := l.silent(at(8)); is {
		t.Errorf("partition %d is silent", p)
	}
	if got := l.gap(at(9)); got != 5*time.Second {
		t.Errorf("the longest gap is %s, want 5s", got)
	}
	if got := l.gap(at(12)); got != 3*time.Second {
		t.Errorf("the gap that goes on is %s, want 3s", got)
	}
}

func TestANewcomerTakesThePlaceOfItsNodesLostDisk(t *testing.T) {
	voter := func(raft uint64, node int32) *adminapi.Member {
		return &adminapi.Member{RaftId: raft, Node: node, Voter: true}
	}
	for _, c := range []struct {
		name            string
		members         []*adminapi.Member
		promote, remove []uint64
	}{
		{"all are voters", []*adminapi.Member{voter(1, 1), voter(12, 2), voter(13, 3)}, nil, nil},
		{"two are new", []*adminapi.Member{voter(1, 1), {RaftId: 12, Node: 2}, {RaftId: 13, Node: 3}}, []uint64{12, 13}, nil},
		{"one joined anew", []*adminapi.Member{voter(1, 1), voter(12, 2), voter(13, 3), {RaftId: 51, Node: 2}}, []uint64{51}, []uint64{12}},
	} {
		if got := promotion(c.members); !slices.Equal(got.Promote, c.promote) || !slices.Equal(got.Remove, c.remove) {
			t.Errorf("%s: promotes %d and removes %d, want %d and %d", c.name, got.Promote, got.Remove, c.promote, c.remove)
		}
	}
}

func TestAVolumeThatIsFilledTwiceIsEmptiedTwice(t *testing.T) {
	volume := t.TempDir()
	var faults faultState
	for range 2 {
		_, remove, err := newBallast(volume)
		if err != nil {
			t.Fatal(err)
		}
		faults.undoBy(remove)
	}
	if err := errors.Join(faults.undo()...); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(volume); err != nil || len(left) > 0 {
		t.Errorf("%v is left: %v", left, err)
	}
}

func TestEveryFaultHasANameOfItsOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range catalogue() {
		if seen[f.name] || f.what == "" || f.round == nil {
			t.Errorf("fault %q", f.name)
		}
		seen[f.name] = true
	}
	all, err := chosen("all")
	if err != nil || len(all) != len(seen)-2 {
		t.Errorf("all are %d of %d faults: %v", len(all), len(seen), err)
	}
	if _, err := chosen("F1,F99"); err == nil {
		t.Error("a fault that does not exist was chosen")
	}
}

func TestReportTellsWhatWentWrong(t *testing.T) {
	text := report([]result{{Fault: "F1", Acknowledged: 7}, {Fault: "F6", Anomalies: []string{"lost"}}, {Fault: "F12", Skipped: "it needs strace"}})
	for _, want := range []string{"holds", "1 ANOMALIES", "skipped: it needs strace", fmt.Sprint(7)} {
		if !strings.Contains(text, want) {
			t.Errorf("the report does not say %q:\n%s", want, text)
		}
	}
}
