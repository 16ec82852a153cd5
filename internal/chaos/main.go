package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

// options is what a run was told.
type options struct {
	kills int
	seed  uint64
	dir   string
	pause time.Duration // between two bursts of a producer

	retention bool // the log is short, and a group that lags is overtaken
}

func main() {
	var o options
	flag.IntVar(&o.kills, "kills", 6, "how often the broker is killed")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano())%1_000_000, "what decides every choice of the run")
	flag.StringVar(&o.dir, "dir", "", "an empty directory for data and logs, kept afterwards; a temporary one if not given, kept if something is wrong")
	flag.DurationVar(&o.pause, "pause", 50*time.Millisecond, "how long each producer waits between two bursts")
	flag.BoolVar(&o.retention, "retention", false, "keep the log short, so that retention overtakes a group that lags")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	replay := fmt.Sprintf("go run ./internal/chaos -kills %d -seed %d", o.kills, o.seed)
	if o.retention {
		replay += " -retention"
	}
	fmt.Println(replay)
	temporary := o.dir == ""
	if temporary {
		var err error
		if o.dir, err = os.MkdirTemp("", "millrace-chaos-"); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			os.Exit(1)
		}
	} else if err := os.MkdirAll(o.dir, 0o700); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\nseed %d; data and millrace.log are in %s; again: %s\n", err, o.seed, o.dir, replay)
		os.Exit(1)
	}
	if temporary {
		_ = os.RemoveAll(o.dir) // what is left of it is a temporary directory
	}
}
