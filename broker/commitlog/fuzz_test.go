package commitlog_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"path"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/commitlog"
	"github.com/millrace-io/millrace/internal/vfs"
)

// closedLog leaves a log of several segments and two epochs on a file system, as a clean stop leaves it.
func closedLog(t testing.TB) (w *world, m *vfs.Mem, want []byte) {
	w, m = inMemory(t)
	w.open()
	for w.log.End() < 400 {
		want = append(want, w.append(broker.LeaderEpoch(1+w.log.End()/200), 5)...)
	}
	w.sync()
	if err := errors.Join(w.log.Close(), w.flusher.Close()); err != nil {
		t.Fatal(err)
	}
	return w, m, want
}

// putFile makes a file hold b and nothing else.
func putFile(t testing.TB, fs vfs.FS, name string, b []byte) {
	t.Helper()
	f, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(0), f.Close()); err != nil {
		t.Fatal(err)
	}
	overwrite(t, fs, name, b, 0)
}

// sealedAgain returns b with the CRC32C that its last four bytes have to be, so that what is behind the checksum is
// reached, too.
func sealedAgain(b []byte) []byte {
	if len(b) < 4 {
		return b
	}
	end := len(b) - 4
	sum := crc32.Checksum(b[:end], crc32.MakeTable(crc32.Castagnoli))
	return binary.LittleEndian.AppendUint32(b[:end:end], sum)
}

// FuzzDerivedFiles: whatever lies in an index, a time index, an epoch file or a producer file, with a good checksum or
// without, Open does not panic, and a log that opens gives every byte that was appended, or an error: never others.
func FuzzDerivedFiles(f *testing.F) {
	_, m, _ := closedLog(f)
	dir := path.Join("data", "topics", partition.Topic.Hex(), "4")
	names, err := m.List(dir)
	if err != nil {
		f.Fatal(err)
	}
	var derived []string
	for _, name := range names {
		if !strings.HasSuffix(name, ".log") {
			derived = append(derived, name)
		}
	}
	if len(derived) < 3 {
		f.Fatalf("only %v lie beside the segments", derived)
	}
	for i, name := range derived {
		f.Add(uint8(i), true, fileBytes(f, m, path.Join(dir, name)))
	}
	f.Fuzz(func(t *testing.T, which uint8, seal bool, b []byte) {
		w, m, want := closedLog(t)
		if seal {
			b = sealedAgain(b)
		}
		name := path.Join(w.config().Dir, derived[int(which)%len(derived)])
		putFile(t, m, name, b)
		if err := w.tryOpen(); err != nil {
			return // refused, with an error that names the file
		}
		if w.log.Start() != 0 || w.log.End() != 400 {
			t.Fatalf("[%d, %d) instead of [0, 400)", w.log.Start(), w.log.End())
		}
		readBackOrRefuse(t, w.log, want)
	})
}

// readBackOrRefuse reads from every offset: what comes is what was appended there, or an error.
func readBackOrRefuse(t *testing.T, l *commitlog.Log, want []byte) {
	for from := l.Start(); from < l.End(); from += 5 {
		s, err := l.Read(from, l.End(), 1, true)
		if err != nil {
			continue
		}
		for _, b := range s.Bytes {
			if !strings.Contains(string(want), string(b)) {
				t.Fatalf("at %d the log gives %d bytes that nobody appended", from, len(b))
			}
		}
		s.Release()
	}
}

// FuzzJournal: whatever lies in the newest flush journal, opening does not panic, and a log whose journal is gone or says
// less is either refused or whole up to what it keeps.
func FuzzJournal(f *testing.F) {
	_, m, _ := closedLog(f)
	names, err := m.List("data/flush")
	if err != nil || len(names) == 0 {
		f.Fatal(names, err)
	}
	newest := path.Join("data/flush", names[len(names)-1])
	whole := fileBytes(f, m, newest)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(append(whole[:len(whole):len(whole)], whole[10:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, m, want := closedLog(t)
		putFile(t, m, newest, b)
		if err := w.tryOpen(); err != nil {
			return
		}
		readBackOrRefuse(t, w.log, want)
	})
}
