package quorum

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"

	"github.com/millrace-io/millrace/internal/vfs"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// replaceFile makes dir/name hold content, durably and all at once.
func replaceFile(fs vfs.FS, dir, name string, content []byte) error {
	final := path.Join(dir, name)
	temporary := final + ".tmp"
	f, err := fs.Create(temporary)
	if err != nil {
		return fmt.Errorf("create %s: %w", temporary, err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(content, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", temporary, errors.Join(err, fs.Remove(temporary)))
	}
	if err := fs.Rename(temporary, final); err != nil {
		return fmt.Errorf("rename %s: %w", temporary, err)
	}
	if err := fs.SyncDir(dir); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// replaceInSpare is replaceFile for a file whose length never changes, and which a full disk must not keep from being
// replaced: the new bytes go into a file that is there already. The next one is made at once, of the space that the old
// file gave back; that there is none is no error.
func replaceInSpare(files vfs.FS, dir, name string, content []byte) error {
	spare := path.Join(dir, name+".tmp")
	f, err := files.Create(spare)
	if err != nil {
		return fmt.Errorf("create %s: %w", spare, err)
	}
	if err := errors.Join(fill(f, content), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", spare, err)
	}
	if err := files.Rename(spare, path.Join(dir, name)); err != nil {
		return fmt.Errorf("rename %s: %w", spare, err)
	}
	if err := files.SyncDir(dir); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if f, err = files.Create(spare); err == nil {
		err = errors.Join(fill(f, make([]byte, len(content))), f.Close())
	}
	if err != nil && !errors.Is(err, vfs.ErrNoSpace) {
		return fmt.Errorf("make %s: %w", spare, err)
	}
	return nil
}

// fill makes a file hold content, durably.
func fill(f vfs.File, content []byte) error {
	if _, err := f.WriteAt(content, 0); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(content))); err != nil {
		return err
	}
	return f.Sync()
}

func readFile(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	content := make([]byte, size)
	if _, err = f.ReadAt(content, 0); errors.Is(err, io.EOF) {
		err = nil
	}
	return content, errors.Join(err, f.Close())
}

// The vote file:
//
//	0   8  magic "MRRFVOTE"
//	8   2  format version, little-endian
//	10  8  term
//	18  8  vote: a raft id, 0 for none
//	26  8  commit, as far as it was known then
//	34  4  CRC32C of everything before
const (
	voteMagic   = "MRRFVOTE"
	voteVersion = 1
	voteBytes   = len(voteMagic) + 2 + 3*8 + crc32.Size
)

// ballot is what must not be forgotten: the term and whom this node voted for in it.
type ballot struct{ term, vote, commit uint64 }

func (b ballot) encode() []byte {
	out := binary.LittleEndian.AppendUint16([]byte(voteMagic), voteVersion)
	for _, field := range []uint64{b.term, b.vote, b.commit} {
		out = binary.LittleEndian.AppendUint64(out, field)
	}
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

func decodeBallot(content []byte) (ballot, error) {
	if len(content) < len(voteMagic)+2 || string(content[:len(voteMagic)]) != voteMagic {
		return ballot{}, errors.New("not a vote file")
	}
	if v := binary.LittleEndian.Uint16(content[len(voteMagic):]); v > voteVersion {
		return ballot{}, fmt.Errorf("vote file of format %d, this program knows %d: run the newer program", v, voteVersion)
	}
	if len(content) != voteBytes {
		return ballot{}, fmt.Errorf("vote file of %d bytes, want %d", len(content), voteBytes)
	}
	body, sum := content[:voteBytes-crc32.Size], binary.LittleEndian.Uint32(content[voteBytes-crc32.Size:])
	if crc32.Checksum(body, castagnoli) != sum {
		return ballot{}, errors.New("the vote file's checksum does not match its bytes")
	}
	fields := body[len(voteMagic)+2:]
	return ballot{
		term:   binary.LittleEndian.Uint64(fields),
		vote:   binary.LittleEndian.Uint64(fields[8:]),
		commit: binary.LittleEndian.Uint64(fields[16:]),
	}, nil
}
