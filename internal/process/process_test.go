package process

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestAProcessThatEndedByItselfIsAnErrorWithItsLastWords(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start(log, "sh", "-c", "echo out of luck; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	<-p.Exited()
	if err := p.End(syscall.SIGTERM); err == nil || !strings.Contains(err.Error(), "out of luck") || !strings.Contains(err.Error(), "exit status 3") {
		t.Fatal(err)
	}
}

func TestAProcessIsGoneWhenEndReturns(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start(log, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.End(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.ID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Fatalf("process %d: %v", p.ID(), err)
	}
	if err := errors.Join(p.End(syscall.SIGKILL), (*Process)(nil).End(syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
}

func TestInstallationsAreMadeOnce(t *testing.T) {
	home, made := filepath.Join(t.TempDir(), "home"), 0
	install := func() error { made++; return nil }
	failed := errors.New("no network")
	if err := Once(home, "version 1", func() error { return failed }); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	if err := errors.Join(Once(home, "version 1", install), Once(home, "version 1", install), Once(home, "version 2", install)); err != nil || made != 2 {
		t.Fatal(made, err)
	}
}
