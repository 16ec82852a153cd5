package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/chaos/netns"
)

// options is what a run was told.
type options struct {
	kills int
	seed  uint64
	dir   string
	pause time.Duration // between two bursts of a producer

	retention bool // the log is short, and a group that lags is overtaken

	cluster bool
	faults  string
	during  time.Duration
	json    string
}

// arguments are those of the same run in another process.
func (o options) arguments() []string {
	return []string{"-cluster", "-fault", o.faults, "-for", o.during.String(), "-seed", fmt.Sprint(o.seed), "-pause", o.pause.String(), "-dir", o.dir, "-json", o.json}
}

func main() {
	var o options
	var general time.Duration
	flag.IntVar(&o.kills, "kills", 6, "how often the broker is killed")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano())%1_000_000, "what decides every choice of the run")
	flag.StringVar(&o.dir, "dir", "", "an empty directory for data and logs, kept afterwards; a temporary one if not given, kept if something is wrong")
	flag.DurationVar(&o.pause, "pause", 50*time.Millisecond, "how long each producer waits between two bursts")
	flag.BoolVar(&o.retention, "retention", false, "keep the log short, so that retention overtakes a group that lags")
	flag.BoolVar(&o.cluster, "cluster", false, "three brokers in network namespaces instead of one, under the faults of -fault")
	flag.StringVar(&o.faults, "fault", "all", "with -cluster: names of faults, such as F1,F6, each a trial of its own; or all")
	flag.DurationVar(&o.during, "for", time.Minute, "with -cluster: how long each trial makes faults")
	flag.DurationVar(&general, "general", 0, "with -cluster: how long a single trial makes faults of any kind, instead of -fault and -for")
	flag.StringVar(&o.json, "json", "", "with -cluster: a file for the report")
	flag.Parse()
	if general > 0 {
		o.faults, o.during = mixture, general
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if netns.Inside() {
		if err := errors.Join(netns.Settle(), runCluster(ctx, o)); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			os.Exit(1)
		}
		return
	}
	replay := fmt.Sprintf("go run ./internal/chaos -kills %d -seed %d", o.kills, o.seed)
	if o.retention {
		replay += " -retention"
	}
	start := run
	if o.cluster {
		start, replay = enterCluster, fmt.Sprintf("go run ./internal/chaos -cluster -fault %s -for %s -seed %d", o.faults, o.during, o.seed)
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
	if err := start(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\nseed %d; data and millrace.log are in %s; again: %s\n", err, o.seed, o.dir, replay)
		os.Exit(1)
	}
	if temporary {
		_ = os.RemoveAll(o.dir) // what is left of it is a temporary directory
	}
}
