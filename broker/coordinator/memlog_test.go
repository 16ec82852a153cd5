package coordinator

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/batch"
)

// memLog is a partition of __consumer_offsets in memory. Tests hold commits back, refuse writes, lose leadership, and
// cut what is not committed.
type memLog struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	batches []batch.View
	start   broker.Offset
	high    broker.Offset // what is committed
	epoch   broker.LeaderEpoch
	held    bool  // writes are not committed until release
	refusal error // what Append answers without writing
	open    error // what Append answers after writing
	appends int
}

func newMemLog() *memLog { return &memLog{changed: make(chan struct{}), epoch: 1} }

func (l *memLog) set(f func()) {
	l.mu.Lock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
}

func (l *memLog) end() broker.Offset {
	if len(l.batches) == 0 {
		return l.start
	}
	return l.batches[len(l.batches)-1].NextOffset()
}

func (l *memLog) hold()    { l.set(func() { l.held = true }) }
func (l *memLog) release() { l.set(func() { l.held = false; l.high = l.end() }) }

// elect begins another leader epoch, here; with cut, what is not committed is lost.
func (l *memLog) elect(epoch broker.LeaderEpoch, cut bool) {
	l.set(func() {
		l.epoch = epoch
		if cut {
			l.batches = slices.DeleteFunc(l.batches, func(v batch.View) bool { return v.BaseOffset() >= l.high })
		}
	})
}

func (l *memLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.appends
}

func (l *memLog) Append(ctx context.Context, epoch broker.LeaderEpoch, batches []byte) error {
	var next broker.Offset
	var err error
	l.set(func() {
		l.appends++
		switch {
		case epoch != l.epoch:
			err = broker.Errorf(broker.NotLeaderOrFollower, "epoch %d is not %d", epoch, l.epoch)
			return
		case l.refusal != nil:
			err = l.refusal
			return
		}
		v, parseErr := batch.Parse(slices.Clone(batches))
		if err = errors.Join(parseErr, batch.Validate(v, batch.Limits{}, &batch.Decompressor{})); err != nil {
			return
		}
		v.Stamp(l.end(), epoch)
		l.batches = append(l.batches, v)
		next = l.end()
		if err = l.open; err == nil && !l.held {
			l.high = next
		}
	})
	if err != nil {
		return err
	}
	return l.await(ctx, func() (bool, error) {
		if l.epoch != epoch {
			return false, broker.Errorf(broker.NotLeaderOrFollower, "epoch %d has ended", epoch)
		}
		return l.high >= next, nil
	})
}

func (l *memLog) await(ctx context.Context, ready func() (bool, error)) error {
	for {
		l.mu.Lock()
		ok, err := ready()
		changed := l.changed
		l.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *memLog) Read(ctx context.Context, from broker.Offset, bytesMax int) ([]byte, error) {
	var out []byte
	err := l.await(ctx, func() (bool, error) {
		for _, v := range l.batches {
			if v.NextOffset() > from && v.NextOffset() <= l.high && (len(out) == 0 || len(out)+v.Len() <= bytesMax) {
				out = append(out, v...)
			}
		}
		return len(out) > 0, nil
	})
	return out, err
}

func (l *memLog) Bounds(epoch broker.LeaderEpoch) (broker.Offset, broker.Offset, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch != l.epoch {
		return 0, 0, broker.Errorf(broker.NotLeaderOrFollower, "epoch %d is not %d", epoch, l.epoch)
	}
	return l.start, l.end(), nil
}
