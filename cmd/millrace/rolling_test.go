package main

import (
	"slices"
	"syscall"
	"testing"
	"time"
)

// R9, RH7: three brokers are stopped and started again one after another, as for a new release, and no client is told of it:
// no acknowledgement fails or waits for long, and no record is lost or written twice. ROLLS=5 goes around so often.
func TestBrokersRestartOneAfterAnotherUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds of load")
	}
	c := newTrio(t)
	l := c.newLoad()
	l.await(time.Time{})
	for range times(t, "ROLLS", 1) {
		for i := range c.nodes {
			began, process := time.Now(), c.nodes[i].cmd
			c.nodes[i].end(syscall.SIGTERM)
			if !process.ProcessState.Success() {
				t.Fatalf("node %d: %v", i+1, process.ProcessState)
			}
			ended := time.Now()
			c.await(c.start(i))
			served := time.Now()
			c.level(loadTopic)
			l.await(time.Now())
			t.Logf("node %d: stopped in %v, served after %v, all replicas in sync after %v", i+1, ended.Sub(began).Round(time.Millisecond),
				served.Sub(ended).Round(time.Millisecond), time.Since(ended).Round(time.Millisecond))
		}
	}
	l.check()
	t.Logf("longest gap between acknowledgements of a partition: %v", l.longest())
	if gap := l.longest(); gap > gapMax {
		t.Errorf("a partition had no acknowledgement for %v, at most %v are promised", gap, gapMax)
	}
}

// Invariant 36: all brokers are killed at once under load and come back without an operator; every acknowledged record is
// there once, where it was acknowledged. KILLS=20 kills so often; the times are in the log.
func TestAllBrokersKilledAtOnceUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds of load")
	}
	c := newTrio(t)
	l := c.newLoad()
	l.await(time.Time{})
	var waits []time.Duration
	for range times(t, "KILLS", 2) {
		for _, m := range c.nodes {
			if err := m.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range c.nodes {
			m.end(syscall.SIGKILL)
		}
		began := time.Now()
		var all []chan struct{}
		for i := range c.nodes {
			all = append(all, c.start(i))
		}
		for _, serves := range all {
			c.await(serves)
		}
		served := time.Since(began).Round(time.Millisecond)
		first := l.await(began).Sub(began).Round(time.Millisecond)
		c.level(loadTopic)
		t.Logf("killed and started together: all serve after %v, the first record is acknowledged after %v, all replicas are in sync after %v",
			served, first, time.Since(began).Round(time.Millisecond))
		waits = append(waits, first)
		l.await(time.Now())
	}
	l.check()
	slices.Sort(waits)
	t.Logf("%d times: median %v, longest %v", len(waits), waits[len(waits)/2], waits[len(waits)-1])
}
