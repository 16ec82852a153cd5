package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace-io/millrace/internal/chaos/netns"
)

// settings are what the command line says.
type settings struct {
	rounds     int
	records    int // 0: by size
	sizes      []int
	partitions []int
	scenarios  []string
	json       string
	dir        string
	idle       time.Duration
	shorter    int      // by which hostile guests' windows are
	keys       []string // for `millrace run`
	cluster    bool     // three brokers of each system instead of one
	profile    string   // where to put the broker's profiles
	profileFor time.Duration
}

// driverGCPercent makes the drivers collect seldom: a reader's own collections took half of its time, whatever broker it
// read from.
const driverGCPercent = 400

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) (err error) {
	s, flags := settings{}, texts{}
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	s.bind(set, &flags)
	if err := set.Parse(arguments); err != nil {
		return err
	}
	if flags.engine {
		return hostileGuests(ctx, os.Stdout)
	}
	debug.SetGCPercent(driverGCPercent)
	if err := s.parse(&flags); err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(s.dir, 0o700), os.MkdirAll(filepath.Dir(s.json), 0o700)); err != nil {
		return err
	}
	work, err := os.MkdirTemp(s.dir, "run-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	b := &bench{settings: s, work: work, arguments: arguments, log: os.Stderr}
	if netns.Inside() {
		b.log = io.Discard // whoever made the sandbox shows what comes of it
	}
	hosts, err := newHosts(ctx)
	if err != nil {
		return err
	}
	if hosts != nil {
		defer func() { err = errors.Join(err, hosts.Close()) }()
	}
	if err := b.install(ctx, &flags, hosts); err != nil {
		return err
	}
	command := append([]string{"go run ./internal/bench"}, arguments...)
	b.save = func() error { return newReport(b, command).write(s.json) }
	estimate := b.estimate()
	fmt.Fprintf(b.log, "about %v, until %s; every visit adds to %s\n", estimate.Round(time.Minute/2),
		time.Now().Add(estimate).Format("15:04"), s.json)
	failure := b.all(ctx)
	if hosts == nil {
		newReport(b, command).print(os.Stdout) // of what there is
	}
	return errors.Join(failure, b.save())
}

// install brings the chosen systems here.
func (b *bench) install(ctx context.Context, flags *texts, hosts *netns.Router) error {
	home, err := newWorkshop(ctx, b.work)
	if err != nil {
		return err
	}
	if b.cluster {
		b.systems, err = triosNamed(flags.systems, home, b.keys, hosts)
	} else {
		b.systems, err = systemsNamed(flags.systems, flags.brokers, home, b.keys)
	}
	if err != nil {
		return err
	}
	for _, x := range b.systems {
		fmt.Fprintln(b.log, "installing", x.Name())
		if err := x.Install(ctx); err != nil {
			return fmt.Errorf("%s: %w", x.Name(), err)
		}
	}
	return nil
}

// texts are flags as they were typed.
type texts struct {
	sizes, partitions, systems, scenarios, keys string
	brokers                                     list
	engine, quick                               bool
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string         { return strings.Join(*l, ",") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

func (s *settings) bind(flags *flag.FlagSet, t *texts) {
	flags.BoolVar(&s.cluster, "cluster", false, "measure clusters of three brokers: millrace,kafka,nats")
	flags.StringVar(&t.systems, "systems", "", "what to measure, in this order; empty: millrace,kafka,nats,kfake; also kafka-fsync and nats-fsync, which sync before they acknowledge")
	flags.Var(&t.brokers, "broker", "also measure the Kafka-protocol broker at NAME=HOST:PORT; may be repeated")
	flags.StringVar(&t.scenarios, "scenarios", "", "what to run; empty: all of "+strings.Join(names(itineraries()), ",")+"; with -cluster "+
		strings.Join(names(trioItineraries()), ","))
	flags.IntVar(&s.rounds, "rounds", 3, "rounds; figures are medians over them")
	flags.IntVar(&s.records, "records", 0, "records that a load writes; 0: 200,000 of 512 bytes or more, else 2,000,000")
	flags.StringVar(&t.sizes, "size", "1024,100", "bytes of key and value together, a visit for each")
	flags.StringVar(&t.partitions, "partitions", "1,6", "partitions of the loads' topics")
	flags.DurationVar(&s.idle, "idle", 30*time.Second, "rest for the disk before each visit, after a sync")
	flags.BoolVar(&t.quick, "quick", false, "a smoke run: one round, no rest, a tenth of the records; its figures mean nothing")
	flags.StringVar(&s.json, "json", "", "where to write everything measured, after each visit; empty: .bench/report.json, with -cluster .bench/cluster.json")
	flags.StringVar(&s.dir, "dir", "", "where brokers keep data; empty: .bench, on a real disk, with -cluster "+memoryDir+", in memory")
	flags.StringVar(&s.profile, "profile", "", "write CPU and allocation profiles of our broker beside each scenario of the last round into this directory")
	flags.DurationVar(&s.profileFor, "profile-for", 2*time.Second, "how long a profile runs, from the start of its scenario")
	flags.StringVar(&t.keys, "keys", "", "further configuration of our broker: KEY=VALUE,...")
	flags.BoolVar(&t.engine, "engine", false, "run hostile plugins in this process, without a broker, instead")
}

// memoryDir is where clusters keep their data: a sync is free there.
const memoryDir = "/dev/shm/millrace-bench"

// reportDir is where reports go.
const reportDir = ".bench"

// itineraries are those of the run.
func (s *settings) itineraries() []itinerary {
	if s.cluster {
		return trioItineraries()
	}
	return itineraries()
}

// names are those of all parts.
func names(of []itinerary) (all []string) {
	for _, i := range of {
		for _, p := range i.parts {
			all = append(all, p.name)
		}
	}
	return all
}

func (s *settings) parse(t *texts) (err error) {
	if s.sizes, err = numbers("-size", t.sizes, keyBytes+1); err != nil {
		return err
	}
	if s.partitions, err = numbers("-partitions", t.partitions, 1); err != nil {
		return err
	}
	all := names(s.itineraries())
	s.scenarios = all
	if t.scenarios != "" {
		s.scenarios = strings.Split(t.scenarios, ",")
	}
	for _, name := range s.scenarios {
		if !slices.Contains(all, name) {
			return fmt.Errorf("-scenarios: %q is none of %s", name, strings.Join(all, ", "))
		}
	}
	if t.systems == "" {
		t.systems = "millrace,kafka,nats,kfake"
		if s.cluster {
			t.systems = "millrace,kafka,nats"
		}
	}
	if t.keys != "" {
		for field := range strings.SplitSeq(t.keys, ",") {
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
	s.shorter = 1
	if t.quick {
		s.rounds, s.idle, s.shorter = 1, 0, 10
		s.records = s.count(1024) / 10
	}
	if s.rounds < 1 {
		return errors.New("-rounds: at least one")
	}
	return s.places()
}

// places fills in where data and the report go.
func (s *settings) places() (err error) {
	report := "report.json"
	if s.cluster {
		report = "cluster.json"
	}
	if s.dir == "" {
		s.dir = reportDir
		if s.cluster {
			s.dir = memoryDir
		}
	}
	if s.json == "" {
		s.json = filepath.Join(reportDir, report)
	}
	if s.json, err = filepath.Abs(s.json); err == nil {
		s.dir, err = filepath.Abs(s.dir)
	}
	return err
}

// numbers splits a list of numbers of at least lowest.
func numbers(flag, text string, lowest int) (all []int, err error) {
	for field := range strings.SplitSeq(text, ",") {
		number, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || number < lowest {
			return nil, fmt.Errorf("%s %s: %q is not a number of at least %d", flag, text, field, lowest)
		}
		all = append(all, number)
	}
	return all, nil
}

// count is how many records a load of a size has.
func (s *settings) count(size int) int {
	switch {
	case s.records > 0:
		return s.records
	case size >= 512:
		return 200_000
	}
	return 2_000_000
}
