package commitlog_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/millrace-io/millrace/broker/commitlog"
)

func TestDamagedJournalIsToldFromATornOne(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	for range 5 {
		w.append(1, 1)
		w.sync()
	}
	names, err := m.List("data/flush")
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	name := "data/flush/" + names[0]
	whole := fileBytes(t, m, name)
	const prefix, record = 10, 60
	used := len(bytes.TrimRight(whole, "\x00")) - prefix
	end := prefix + (used+record-1)/record*record
	if end < prefix+5*record || end+2*record > len(whole) {
		t.Fatalf("%d bytes of records in %d", end, len(whole))
	}
	for at := prefix; at < end+2*record; at++ { // and among the zeros behind them
		damaged := m.CrashClone(nil)
		overwrite(t, damaged, name, []byte{whole[at] ^ 4}, int64(at))
		err := (&world{t: t, fs: damaged, dir: w.dir}).tryOpen()
		var corrupt *commitlog.CorruptError
		lastRecord := at >= end-record
		if !lastRecord && (!errors.As(err, &corrupt) || corrupt.File != name) || lastRecord && err != nil {
			t.Fatalf("byte %d of %d flipped: %v", at, len(whole), err)
		}
	}
}

func TestJournalOfAnotherReplicaIsVoid(t *testing.T) {
	w, m := inMemory(t)
	w.open()
	w.append(1, 10)
	w.sync()
	overwrite(t, m, w.segmentFile(0), []byte{0xff}, 90)
	cfg := w.config()
	cfg.Replica++
	var err error
	if cfg.Flusher, err = commitlog.NewFlusher(commitlog.FlusherConfig{FS: m, Dir: w.dir}); err != nil {
		t.Fatal(err)
	}
	l, err := commitlog.Open(cfg)
	if err != nil || l.End() != 0 {
		t.Fatalf("under a new replica id: %v", err)
	}
}
