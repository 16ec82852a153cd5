package commitlog

import (
	"hash/crc32"

	"github.com/millrace-io/millrace/broker/batch"
)

// savedAgrees holds the epochs file against the last batches of a closed segment, between its last two index entries. The
// file is a cache of what batches say, and an older one may have been put back: by it, reads would take every batch of a
// later epoch for damage. The last batch is enough. Epochs rise, so it is of one that the file does not know, or knows from
// elsewhere: what lay there was cut, and a later epoch came. And where an epoch begins is the same in every log that has it.
//
// No batch's CRC covers its epoch, but the index's does. Headers that it does not know are damage, which reads find.
func (r *recovery) savedAgrees(seg *segment, before, last indexEntry) bool {
	run, agrees := uint32(0), true
	for at := int64(before.pos); at < seg.size; {
		v := make(batch.View, batch.HeaderBytes)
		if n, _ := seg.file.ReadAt(v, at); n < len(v) || batch.PeekLen(v) <= 0 {
			return true
		}
		run = crc32.Update(run, castagnoli, v[:batch.UncoveredBytes])
		agrees = agrees && r.saved.at(v.BaseOffset()) == v.LeaderEpoch()
		at += int64(batch.PeekLen(v))
	}
	if agrees || run != last.crc {
		return true
	}
	r.log.logger.Warn().Str("segment", seg.name).Msg("the file of leader epochs disagrees with the log, and is made again from it")
	return false
}
