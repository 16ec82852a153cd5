package raftctl

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestProduceEndsWhenNothingIsAcknowledged(t *testing.T) {
	const limit = 10 * time.Second
	for name, c := range map[string]struct {
		buffered int64
		acks     bool
		ends     bool
	}{
		"records wait, none is acknowledged":    {buffered: 3, ends: true},
		"records wait, some are acknowledged":   {buffered: 3, acks: true},
		"standard input is slow, nothing waits": {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				count := &acknowledgements{topic: "t"}
				sending := (&cli{timeout: limit}).untilStalled(t.Context(), count, func() int64 { return c.buffered })
				for range 6 {
					time.Sleep(limit / 2)
					if c.acks {
						count.done(nil, nil)
					}
				}
				synctest.Wait()
				if ended := sending.Context().Err() != nil; ended != c.ends {
					t.Errorf("ended %t after three limits", ended)
				}
				sending.Stop()
				err := sending.Wait()
				if c.ends && exitCode(err) != exitUnhealthy || !c.ends && err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestLongWorkTellsHowFarItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs strings.Builder
		c := &cli{errs: &errs}
		stop := c.progress("records", func() int { return 7 })
		time.Sleep(progressAfter - 1)
		synctest.Wait()
		if errs.Len() > 0 {
			t.Errorf("%q before two seconds", errs.String())
		}
		time.Sleep(progressAfter)
		synctest.Wait()
		stop()
		if errs.String() != "records 7 so far\n" {
			t.Errorf("%q", errs.String())
		}
	})
}

func TestQuietMeansNoProgress(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		stop := (&cli{quiet: true, errs: panicWriter{}}).progress("records", func() int { return 7 })
		time.Sleep(time.Minute)
		stop()
	})
}

type panicWriter struct{}

func (panicWriter) Write([]byte) (int, error) { panic("written to") }

func TestALineThatIsTooLongIsAUsageError(t *testing.T) {
	long := io.MultiReader(strings.NewReader("short\n"), io.LimitReader(letters{}, lineBytesMax+1))
	lines := 0
	err := eachLine(long, func(int, []byte) error { lines++; return nil })
	if lines != 1 || exitCode(err) != exitUsage || !strings.HasPrefix(err.Error(), "line 2 has more than") {
		t.Error(lines, err)
	}
}

type letters struct{}

func (letters) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

func TestRunAnswersAnyCommandLine(t *testing.T) {
	nothing := func(string) (string, bool) { return "", false }
	for _, args := range [][]string{nil, {"--help"}, {"help", "topic"}, {"completion", "bash"}, {"version"}, {"--output"}, {"topic", "list", "extra"}, {"-o"}, {""}, {"bind", "--"}} {
		var out, errs strings.Builder
		code := Run(context.Background(), args, strings.NewReader(""), &out, &errs, nothing)
		if code != exitDone && code != exitUsage || code == exitUsage != strings.HasPrefix(errs.String(), "raftctl: ") {
			t.Errorf("%q: %d, %q", args, code, errs.String())
		}
	}
}
