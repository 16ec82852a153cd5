package replica

import "sync"

// watchers are the channels to signal when a replica's view changes.
type watchers struct {
	mu   sync.Mutex
	list []*watcher
}

type watcher struct {
	ch    chan<- struct{}
	index int
}

func (w *watchers) add(ch chan<- struct{}) (cancel func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	own := &watcher{ch: ch, index: len(w.list)}
	w.list = append(w.list, own)
	return func() { w.remove(own) }
}

func (w *watchers) remove(own *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if own.index < 0 {
		return
	}
	last := len(w.list) - 1
	w.list[own.index] = w.list[last]
	w.list[own.index].index = own.index
	w.list[last] = nil
	w.list = w.list[:last]
	own.index = -1
}

// signal wakes everybody who is not about to wake anyway. The channels are copied into scratch, which is returned for
// the next time, so that nothing is sent under the lock.
func (w *watchers) signal(scratch []chan<- struct{}) []chan<- struct{} {
	scratch = scratch[:0]
	w.mu.Lock()
	for _, each := range w.list {
		scratch = append(scratch, each.ch)
	}
	w.mu.Unlock()
	for i, ch := range scratch {
		select {
		case ch <- struct{}{}:
		default:
		}
		scratch[i] = nil
	}
	return scratch
}
