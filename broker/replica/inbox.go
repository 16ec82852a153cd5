package replica

import (
	"sync"

	"github.com/millrace-io/millrace/broker"
)

const (
	// runMax bounds the appends that one run takes, and that a submitter serves before it hands the role over.
	runMax = 32
	// waitingMax bounds the appends in an inbox; beyond it they are refused. Connections have few requests in flight
	// each, so that a client meets this only in company of thousands.
	waitingMax = 16 << 10
)

// submission is an append on its way to the owner.
type submission struct {
	Append
	done func(Appended)
}

// inbox is where events wait for the owner.
type inbox struct {
	mu      sync.Mutex
	owned   bool // somebody is the owner and will look here again
	closed  bool
	appends []submission
	head    int // of appends; what is before it was taken
	tasks   []func()
	flushed bool // the durable end rose; where to is the log's to say
}

// errors of a closed or full inbox.
var (
	errClosed = broker.Errorf(broker.NotLeaderOrFollower, "the replica was closed")
	errBusy   = broker.Errorf(broker.NotEnoughReplicas, "too many appends wait for this partition")
)

// putAppend reports whether the caller has become the owner and must serve.
func (b *inbox) putAppend(s submission) (enter bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false, errClosed
	}
	if len(b.appends)-b.head >= waitingMax {
		return false, errBusy
	}
	b.appends = append(b.appends, s)
	return b.enter(), nil
}

// putTask is putAppend for anything else that the owner is to do. A closed inbox takes none.
func (b *inbox) putTask(f func()) (taken, enter bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false, false
	}
	b.tasks = append(b.tasks, f)
	return true, b.enter()
}

// putFlushed notes that the durable end rose. The end itself is read from the log when the owner comes to it: by then a
// cut may have lowered it again (RC4).
func (b *inbox) putFlushed() (enter bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flushed = true
	return b.enter()
}

// enter makes the caller the owner if there is none. Under mu.
func (b *inbox) enter() bool {
	if b.owned {
		return false
	}
	b.owned = true
	return true
}

// close refuses everything that comes later; what is here is still served.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

// events is what the owner takes at once.
type events struct {
	tasks   []func()
	appends []submission
	flushed bool
}

// duty is what an owner may take.
type duty uint8

const (
	flusherDuty   duty = iota // durable ends only: whoever flushes must not write, nor wait for a flush
	taskDuty                  // tasks besides
	submitterDuty             // appends besides
)

// takeResult says what the owner goes on with.
type takeResult uint8

const (
	nothing  takeResult = iota // the inbox is empty, and the caller is the owner no more
	some                       // serve what was taken
	handOver                   // what is left is not the caller's duty
)

// take moves waiting events into e: what the duty allows, and at most appendsMax appends.
func (b *inbox) take(e *events, duty duty, appendsMax int) takeResult {
	b.mu.Lock()
	defer b.mu.Unlock()
	waiting := len(b.appends) - b.head
	if waiting == 0 && len(b.tasks) == 0 && !b.flushed {
		b.owned = false
		return nothing
	}
	*e = events{tasks: e.tasks[:0], appends: e.appends[:0], flushed: b.flushed}
	b.flushed = false
	if duty >= taskDuty {
		e.tasks, b.tasks = b.tasks, e.tasks
	}
	if duty >= submitterDuty {
		b.moveAppends(e, min(waiting, appendsMax))
	}
	if !e.flushed && len(e.tasks) == 0 && len(e.appends) == 0 {
		return handOver
	}
	return some
}

// moveAppends moves the oldest n appends into e. Under mu.
func (b *inbox) moveAppends(e *events, n int) {
	e.appends = append(e.appends, b.appends[b.head:b.head+n]...)
	clear(b.appends[b.head : b.head+n]) // the requests' memory is not held longer than needed
	b.head += n
	switch {
	case b.head == len(b.appends):
		b.appends, b.head = b.appends[:0], 0
	case b.head >= 1024 && 2*b.head >= len(b.appends):
		kept := copy(b.appends, b.appends[b.head:])
		clear(b.appends[kept:])
		b.appends, b.head = b.appends[:kept], 0
	}
}
