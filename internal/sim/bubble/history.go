package bubble

import (
	"maps"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker"
)

// sent is one record that a producer gave to its client.
type sent struct {
	producer  int
	value     string
	partition int32
	call, ret time.Duration // since the beginning; ret is 0 until the client knows
	acked     bool
	offset    broker.Offset // if acked
	err       error         // if not
}

// got is one record as a consumer got it.
type got struct {
	who       string
	partition int32
	offset    broker.Offset
	value     string
}

// told is a leader's answer to the question where its committed log ends.
type told struct {
	partition int32
	end       broker.Offset
	epoch     broker.LeaderEpoch
	call, ret time.Duration
}

// history is what clients saw. It is safe for concurrent use.
type history struct {
	began time.Time

	mu        sync.Mutex
	sends     []*sent                            // guarded by mu
	reads     []got                              // guarded by mu
	ends      []told                             // guarded by mu
	committed map[string]map[int32]broker.Offset // guarded by mu: the largest acknowledged commit of each group
	commits   int                                // guarded by mu
	wrong     []string                           // guarded by mu: what was seen to be wrong on the way
}

func newHistory() *history {
	return &history{began: time.Now(), committed: map[string]map[int32]broker.Offset{group: {}, boundGroup: {}}}
}

func (h *history) now() time.Duration { return time.Since(h.began) }

// change lets do work on the history alone.
func (h *history) change(do func()) { h.mu.Lock(); defer h.mu.Unlock(); do() }

// open is how many records nobody knows the end of yet.
func (h *history) open() (n int) {
	h.change(func() {
		for _, s := range h.sends {
			if s.ret == 0 {
				n++
			}
		}
	})
	return n
}

// commit notes an acknowledged commit.
func (h *history) commit(group string, partition int32, o broker.Offset) {
	h.change(func() {
		h.commits++
		h.committed[group][partition] = max(h.committed[group][partition], o)
	})
}

// low returns the largest commit of a group that was acknowledged for each partition, so far.
func (h *history) low(group string) (low map[int32]broker.Offset) {
	h.change(func() { low = maps.Clone(h.committed[group]) })
	return low
}
