package controller

import "testing"

// inquest ticks every 25 ms from the close at 1000 on, with heartbeats at the given times, and returns the verdict with its
// time. While the node is paused, in [from, until), nothing is done; heartbeats of that time come right behind it.
func inquest(from, until int64, heartbeats ...int64) (Verdict, int64) {
	q := NewInquest(1000)
	for now := int64(1000); now < 3000; now += 5 {
		if now >= from && now < until {
			continue
		}
		verdict := Undecided
		if now%InquestTickMs == 0 {
			verdict = q.OnTick(now)
		}
		for len(heartbeats) > 0 && heartbeats[0] <= now {
			q.OnHeartbeat(now)
			heartbeats = heartbeats[1:]
		}
		if verdict != Undecided {
			return verdict, now
		}
	}
	return Undecided, 3000
}

// RH7: a closed lifeline with 150 ms of silence behind it is a death; with a heartbeat it is not; what was under way when the
// process died is no sign of life; and a voter that did not run itself asks for as much more silence (RH6).
func TestAClosedLifelineIsADeathOnlyWithSilence(t *testing.T) {
	for _, c := range []struct {
		name        string
		from, until int64 // of this node's pause
		heartbeats  []int64
		verdict     Verdict
		at          int64
	}{
		{name: "killed", verdict: Dead, at: 1150},
		{name: "killed with a heartbeat under way", heartbeats: []int64{1040}, verdict: Dead, at: 1200},
		{name: "cut off while heartbeats go on", heartbeats: []int64{1090, 1190}, verdict: Lives, at: 1100},
		{name: "cut off right before a heartbeat", heartbeats: []int64{1005, 1105}, verdict: Lives, at: 1125},
		{name: "this node paused, a heartbeat lies unread", from: 1030, until: 2000, heartbeats: []int64{1100}, verdict: Lives, at: 2025},
		{name: "this node paused, the other died", from: 1030, until: 2000, verdict: Dead, at: 2125},
	} {
		t.Run(c.name, func(t *testing.T) {
			if verdict, at := inquest(c.from, c.until, c.heartbeats...); verdict != c.verdict || at != c.at {
				t.Errorf("verdict %d at %d, want %d at %d", verdict, at, c.verdict, c.at)
			}
		})
	}
}
