package netns

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestADiskWhosePowerWasCutHasWhatWasSyncedAndNoMore(t *testing.T) {
	if !Inside() {
		t.Skip(Why())
	}
	if why := WhyNoDisks(); why != nil {
		t.Skip(why)
	}
	dir := filepath.Join(t.TempDir(), "disk")
	d, err := NewDisk(t.Context(), dir, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(unix.Unmount(dir, 0), d.file.Close()); err != nil {
			t.Error(err)
		}
	}()
	write := func(name string, sync bool) error {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		_, err = file.WriteString(name)
		if sync {
			err = errors.Join(err, file.Sync())
		}
		return errors.Join(err, file.Close())
	}
	for round := range 3 {
		if err := errors.Join(write("synced", true), write("not synced", false), d.CutPower()); err != nil {
			t.Fatal(err)
		}
		if err := write("too late", true); !errors.Is(err, unix.EIO) {
			t.Errorf("round %d: a sync without power: %v", round, err)
		}
		if err := d.RestorePower(); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range left {
			names = append(names, e.Name())
		}
		if !slices.Equal(names, []string{"synced"}) {
			t.Errorf("round %d: %q are there", round, names)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "synced")); err != nil || string(text) != "synced" {
			t.Errorf("round %d: the synced file holds %q: %v", round, text, err)
		}
		if err := os.Remove(filepath.Join(dir, "synced")); err != nil {
			t.Fatal(err)
		}
	}
}
