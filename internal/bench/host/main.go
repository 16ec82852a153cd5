// Command host runs this tree's node as `millrace run` does, in a process that can also do what a broker has no business
// to: say what the collector's pauses were, and run a loop in Go in the place of a guest.
//
//	host --control HOST:PORT --KEY VALUE ...      keys as `millrace run` takes them
//
//	GET  /pauses      the runtime's histograms of pauses since the last call: the highest bucket of each
//	POST /spin?for=D  a loop for so long, on a goroutine of its own
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker/node"
	"github.com/millrace-io/millrace/internal/task"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "host:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	control, config, err := configure(arguments)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	group := task.NewGroup(ctx)
	p := &pauses{before: read()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /pauses", p.serve)
	mux.HandleFunc("POST /spin", func(w http.ResponseWriter, r *http.Request) { spin(group, w, r) })
	server := &http.Server{Addr: control, Handler: mux}
	group.Go("control", func(context.Context) error {
		if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go("node", func(ctx context.Context) error {
		logger := zerolog.New(os.Stderr).Level(config.LogLevel).With().Timestamp().Logger()
		return errors.Join(node.Run(ctx, config, node.SystemSeams(), logger), server.Close())
	})
	return group.Wait()
}

// configure reads --KEY VALUE and --KEY=VALUE.
func configure(arguments []string) (control string, config node.Config, err error) {
	var split []string
	for _, argument := range arguments {
		key, value, joined := strings.Cut(argument, "=")
		if split = append(split, key); joined {
			split = append(split, value)
		}
	}
	arguments = split
	keys := map[string]string{}
	for _, key := range node.Keys() {
		keys["--"+node.Flag(key[0])] = key[0]
	}
	flags := map[string]string{}
	for i := 0; i+1 < len(arguments); i += 2 {
		name, value := arguments[i], arguments[i+1]
		switch key := keys[name]; {
		case name == "--control":
			control = value
		case key == "":
			return "", config, fmt.Errorf("unknown argument %s", name)
		default:
			flags[key] = value
		}
	}
	config, err = node.Load("", func(string) (string, bool) { return "", false }, flags)
	return control, config, err
}

// names are the histograms that pauses reads.
var names = []string{"/sched/pauses/stopping/gc:seconds", "/sched/pauses/total/gc:seconds"}

// pauses answers what was added to the histograms since the last answer.
type pauses struct {
	mu     sync.Mutex
	before []metrics.Sample // guarded by mu
}

func read() []metrics.Sample {
	samples := make([]metrics.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	metrics.Read(samples)
	return samples
}

func (p *pauses) serve(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	now := read()
	highest := map[string]float64{}
	for i, sample := range now {
		highest[sample.Name] = highestOf(sample.Value.Float64Histogram(), p.before[i].Value.Float64Histogram())
	}
	p.before = now
	p.mu.Unlock()
	_ = json.NewEncoder(w).Encode(highest) // the bench sees a short answer
}

// highestOf is the upper bound in seconds of the highest bucket that gained.
func highestOf(now, before *metrics.Float64Histogram) float64 {
	for i := len(now.Counts) - 1; i >= 0; i-- {
		if now.Counts[i] > before.Counts[i] {
			if top := now.Buckets[i+1]; !math.IsInf(top, 1) {
				return top
			}
			return now.Buckets[i]
		}
	}
	return 0
}

// spin runs a loop that only the runtime's own preemption interrupts.
func spin(group *task.Group, w http.ResponseWriter, r *http.Request) {
	span, err := time.ParseDuration(r.FormValue("for"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	group.Go("spin", func(ctx context.Context) error {
		begin := time.Now()
		for x := uint64(1); time.Since(begin) < span && ctx.Err() == nil; {
			for range 1 << 24 {
				x = x*6364136223846793005 + 1
			}
			runtime.KeepAlive(x)
		}
		return nil
	})
}
