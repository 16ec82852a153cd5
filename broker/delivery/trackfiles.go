package delivery

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/plugins/window"
)

// valid returns the header of a block's files if both that hold verdicts and ids are whole, are about the same span and
// agree with the log: the leader epoch of their last batch is the log's (H12).
func (t *track) valid(start broker.Offset) (fileHeader, error) {
	_, _, h, err := t.readBlock(start)
	return h, err
}

var errDisagrees = errors.New("a file of a judge key disagrees with the log")

func (t *track) readBlock(start broker.Offset) (*block, *window.IDs, fileHeader, error) {
	b, h, err := t.readVerdicts(start)
	if err != nil {
		return nil, nil, h, err
	}
	sightings, err := t.shelf.read(fileIDs, start)
	if err != nil {
		return nil, nil, h, err
	}
	of, ids, err := decodeIDs(sightings, t.window)
	if err != nil {
		return nil, nil, h, err
	}
	if h != of {
		return nil, nil, h, fmt.Errorf("%w: its sibling says otherwise", errDisagrees)
	}
	return b, ids, h, nil
}

// readVerdicts reads a block without its ids, which are sixty times as much.
func (t *track) readVerdicts(start broker.Offset) (*block, fileHeader, error) {
	verdicts, err := t.shelf.read(fileVerdicts, start)
	if err != nil {
		return nil, fileHeader{}, err
	}
	h, b, err := decodeVerdicts(verdicts, t.window)
	if err != nil {
		return nil, h, err
	}
	if h.key != t.key || h.block != start {
		return nil, h, fmt.Errorf("%w: its name says otherwise", errDisagrees)
	}
	ends := t.source.Ends()
	epoch, known := t.source.EpochAt(h.end - 1)
	if h.end > ends.LogEnd || known && epoch != h.epoch {
		return nil, h, fmt.Errorf("%w: epoch %d at %d", errDisagrees, h.epoch, h.end-1)
	}
	return b, h, nil
}

// adopt takes the block that judging has come to from its files, if judging again could not count sightings from
// further back.
func (t *track) adopt(start broker.Offset) bool {
	if t.held(start) != nil {
		return false
	}
	b, ids, h, err := t.readBlock(start)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			t.logger.Warn().Err(err).Int64("block", int64(start)).Msg("file of a judge key set aside")
			t.drop(start)
		}
		return false
	}
	enough := max(t.base, t.low, broker.Offset(t.window.Floor(int64(start))))
	if h.base > enough || h.end <= t.judged {
		return false
	}
	b.ids = ids
	if splices, err := t.readSplices(b); err == nil {
		b.splices = splices
	}
	if !b.full() && b.splices == nil {
		b.splices = map[broker.Offset]*splice{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	b.written = b.full()
	t.keep(b)
	t.judged = b.end
	t.sighted = nil
	return true
}

// drop removes a block's files; what remains is met again, so an error is only logged.
func (t *track) drop(start broker.Offset) {
	if err := t.shelf.remove(start); err != nil {
		t.logger.Warn().Err(err).Int64("block", int64(start)).Msg("remove files of a judge key")
	}
}

func (t *track) readSplices(b *block) (map[broker.Offset]*splice, error) {
	bytes, err := t.shelf.read(fileSplices, b.start)
	if err != nil {
		return nil, err
	}
	h, splices, err := decodeSplices(bytes)
	if err == nil && h != b.header(t.key) {
		err = errDisagrees
	}
	return splices, err
}
