package delivery

import (
	"context"
	"time"
)

// bell wakes one goroutine. Rings while nobody waits are one ring.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

func (b bell) wait(ctx context.Context) {
	select {
	case <-b:
	case <-ctx.Done():
	}
}

// pause waits for a time, or until early rings; a nil one never does.
func pause(ctx context.Context, d time.Duration, early bell) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-early:
	case <-ctx.Done():
	}
}
