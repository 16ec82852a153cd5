package delivery

import (
	"context"

	"github.com/millrace-io/millrace/broker"
)

// finishedMax bounds the full blocks that wait to be written, a megabyte and a half each. Judging that is faster than
// the disk waits beyond that.
const finishedMax = 4

// writeJob is a block on its way to the writer.
type writeJob struct {
	finished finishedBlock
	done     chan<- error // has room for the answer
}

// writeFiles writes full blocks until ctx ends, beside the goroutine that judges: hashing a megabyte and a half, and syncs
// where they are needed, would hold it up. The files are caches, so nobody waits for them but save.
func (t *track) writeFiles(ctx context.Context) error {
	for {
		select {
		case job := <-t.jobs:
			job.done <- t.write(job.finished)
			t.bell.ring()
		case <-ctx.Done():
			return nil
		}
	}
}

// handOver keeps the writer busy: it takes over what became of the last block and gives the writer the next. It waits
// only if too many blocks are full.
func (t *track) handOver() error {
	if len(t.finished) > finishedMax {
		return t.flush()
	}
	if t.writing != nil {
		select {
		case err := <-t.writing:
			if err := t.wrote(err); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	if len(t.finished) == 0 {
		return nil
	}
	t.writing = make(chan error, 1)
	t.jobs <- writeJob{finished: t.finished[0], done: t.writing} // there is room: one block is handed over at a time
	return nil
}

// flush writes the blocks that are full and returns when their files are there.
func (t *track) flush() error {
	if t.writing != nil {
		select {
		case err := <-t.writing:
			if err := t.wrote(err); err != nil {
				return err
			}
		case <-t.jobs: // taken back: the writer had not begun, and may have ended
			t.writing = nil
		}
	}
	for len(t.finished) > 0 {
		if err := t.wrote(t.write(t.finished[0])); err != nil {
			return err
		}
	}
	return nil
}

// wrote notes what became of the first finished block. One that was not written stays where it is.
func (t *track) wrote(err error) error {
	t.writing = nil
	if err != nil {
		return err
	}
	b, ids := t.finished[0].block, t.finished[0].ids
	t.finished = t.finished[1:]
	if ids != nil {
		ids.Release()
	}
	t.mu.Lock()
	b.written = true
	if spliceBytes(b.splices) > splicesKeptBytes {
		b.splices = nil
	}
	t.mu.Unlock()
	t.changed() // a reader may want ids that left the window before the file was there
	return nil
}

// write writes a block's files. Called by the writer, or by the track's goroutine while the writer is at rest. The block
// is full, or nobody adds to it meanwhile. secured rises only while the writer is at rest.
func (t *track) write(f finishedBlock) error {
	t.mu.RLock()
	splices := encodeSplices(t.key, f.block)
	t.mu.RUnlock()
	last := cached
	if f.block.start < max(t.secured, t.source.Ends().LogStart) {
		last = durable // it may take the place of one that was secured
	}
	t.room = encodeIDs(t.room, t.key, f.block, f.ids)
	return t.shelf.write(f.block.start, [fileKinds][]byte{
		fileVerdicts: encodeVerdicts(t.key, f.block), fileIDs: t.room, fileSplices: splices,
	}, last)
}

// secure makes the ids below start durable, before the log loses them (H10): afterwards the files are the only copy. Full
// blocks may still wait for the writer, and the open one may reach below it. What is judged later is written durably.
func (t *track) secure(start broker.Offset) error {
	write := t.flush
	if blockOf(t.judged, t.window.BlockBits) < start {
		write = t.save
	}
	if err := write(); err != nil || start <= t.secured {
		return err
	}
	// The block at the border of the last time was perhaps open then.
	from := max(broker.Offset(t.window.Floor(int64(start))), blockOf(t.secured, t.window.BlockBits))
	if err := t.shelf.secure(from, start); err != nil {
		return err
	}
	t.secured = start
	return nil
}
