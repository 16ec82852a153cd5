package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// settings are what the command line says.
type settings struct {
	rounds  int
	records int // 0: by size
	sizes   []int
	only    *regexp.Regexp
	json    string
	dir     string
	pause   time.Duration
	keys    []string // for `millrace run`
	profile string   // where to put the broker's CPU profiles
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) (err error) {
	var s settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&s.rounds, "rounds", 3, "rounds; figures are medians over them")
	flags.IntVar(&s.records, "records", 0, "records a scenario writes; 0: 200,000 of 512 bytes or more, else 1,000,000")
	sizes := flags.String("size", "1024,100", "bytes of key and value together, one run for each")
	only := flags.String("only", "", "run scenarios whose name matches this expression, and what they need")
	flags.StringVar(&s.json, "json", "", "also write everything measured to this file")
	flags.StringVar(&s.dir, "dir", "", "where brokers keep data: a directory on a real disk; empty: .bench in the working directory")
	flags.DurationVar(&s.pause, "pause", 2*time.Second, "idle time before each scenario, after a sync")
	flags.StringVar(&s.profile, "profile", "", "write a CPU profile of the broker over each scenario of the last round into this directory")
	keys := flags.String("keys", "", "further configuration of our broker: KEY=VALUE,...")
	guests := flags.Bool("guests", false, "run hostile plugins beside a load instead")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *guests {
		return hostileGuests(ctx, os.Stdout)
	}
	if err := s.parse(*sizes, *only, *keys); err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	work, err := os.MkdirTemp(s.dir, "run-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	fmt.Println("building the broker")
	ours, err := newMillrace(ctx, work, s.keys)
	if err != nil {
		return err
	}
	b := &bench{settings: s, work: work, systems: []system{ours}, log: os.Stderr}
	if err := b.all(ctx); err != nil {
		return err
	}
	r := newReport(b, append([]string{"go run ./internal/bench"}, arguments...))
	r.print(os.Stdout)
	if s.json == "" {
		return nil
	}
	return r.write(s.json)
}

func (s *settings) parse(sizes, only, keys string) error {
	for field := range strings.SplitSeq(sizes, ",") {
		size, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || size <= keyBytes {
			return fmt.Errorf("-size %s: %q is not a number above %d", sizes, field, keyBytes)
		}
		s.sizes = append(s.sizes, size)
	}
	var err error
	if s.only, err = regexp.Compile(only); err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if keys != "" {
		for field := range strings.SplitSeq(keys, ",") {
			key, value, ok := strings.Cut(field, "=")
			if !ok {
				return fmt.Errorf("-keys: %q is not KEY=VALUE", field)
			}
			s.keys = append(s.keys, "--"+strings.ReplaceAll(key, ".", "-"), value)
		}
	}
	if s.profile != "" {
		s.keys = append(s.keys, "--debug-pprof=true")
	}
	if s.rounds < 1 {
		return errors.New("-rounds: at least one")
	}
	if s.dir == "" {
		s.dir = ".bench"
	}
	s.dir, err = filepath.Abs(s.dir)
	return err
}

func (s *settings) count(size int) int {
	switch {
	case s.records > 0:
		return s.records
	case size >= 512:
		return 200_000
	}
	return 1_000_000
}

// settle lets the disk and the clocks come to rest.
func (s *settings) settle(ctx context.Context) {
	syscall.Sync()
	select {
	case <-time.After(s.pause):
	case <-ctx.Done():
	}
}
