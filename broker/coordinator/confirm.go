package coordinator

import (
	"context"

	"github.com/millrace-io/millrace/broker"
)

// What is in memory is the newest only while no other node coordinates the partition (30, 32), and a process that was paused
// or cut off does not know: it leads as far as it can tell, and was replaced long ago. So both of these are asked after
// reading from memory, before answering.

// errUnsure is the answer of a node that may have been replaced: look for the coordinator again.
var errUnsure = broker.Errorf(broker.NotCoordinator, "this node has not heard the controller for a moment, and another one may coordinate the group by now; look its coordinator up again")

// confirm is nil if this node is sure to have led the partition when it was called.
func (t *tenure) confirm() error {
	if _, _, err := t.log.Bounds(t.epoch); err != nil {
		return errNotCoordinator
	}
	if !t.config.Lease() {
		return errUnsure
	}
	return nil
}

// ensureLeads is confirm that goes on without a controller, which may be gone for long: what is committed in the tenure's own
// leader epoch was written by all that may lead after it, none of which did so yet.
func (t *tenure) ensureLeads(ctx context.Context) error {
	err := t.confirm()
	if err != errUnsure {
		return err
	}
	done := make(chan broker.Code, 1)
	t.mu.Lock()
	if t.phase != leading || t.queueBytes > t.config.QueueBytesMax {
		t.mu.Unlock()
		return errUnsure
	}
	t.enqueue(&write{records: []record{markRecord()}, done: done})
	t.mu.Unlock()
	t.kick()
	select {
	case code := <-done:
		if code != broker.None {
			return errUnsure
		}
		return nil
	case <-t.ended:
		return errNotCoordinator
	case <-ctx.Done():
		return interrupted(ctx)
	}
}

// markRecord says nothing: it removes the group without a name, which has no members. Compaction leaves one of them at most.
func markRecord() record { return groupTombstone("") }
