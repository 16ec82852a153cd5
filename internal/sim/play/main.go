// Command play runs the cluster simulation: one seed with its trace, many seeds, or the suite against every mutant.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/internal/mutant"
	"github.com/millrace-io/millrace/internal/sim"
)

type options struct {
	seed     uint64
	trace    bool
	seeds    uint64
	from     uint64
	mutant   uint
	mutants  bool
	scenario string
}

func main() {
	var o options
	flag.Uint64Var(&o.seed, "seed", 0, "play this seed alone")
	flag.BoolVar(&o.trace, "trace", false, "print what happens, with -seed or -scenario")
	flag.StringVar(&o.scenario, "scenario", "", "play this scenario alone")
	flag.Uint64Var(&o.seeds, "seeds", 1000, "how many seeds to play")
	flag.Uint64Var(&o.from, "from", 1, "the first of them")
	flag.UintVar(&o.mutant, "mutant", 0, "break one rule, by its number; needs -tags mutant")
	flag.BoolVar(&o.mutants, "mutants", false, "break every rule in turn, or that of -mutant, and print which seed noticed")
	flag.Parse()
	if (o.mutants || o.mutant != 0) && !mutant.Built {
		os.Exit(rebuilt())
	}
	if !run(o) {
		os.Exit(1)
	}
}

// rebuilt runs the same command in a build with mutants.
func rebuilt() int {
	cmd := exec.Command("go", append([]string{"run", "-tags", "mutant", "./internal/sim/play"}, os.Args[1:]...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func run(o options) bool {
	switch {
	case o.mutants:
		return sim.TryMutants(os.Stdout, o.seeds, mutant.Mutant(o.mutant))
	case o.seed != 0:
		mutant.Choose(mutant.Mutant(o.mutant))
		return one(o, func(out io.Writer) sim.Result { return sim.Run(o.seed, out) })
	case o.scenario != "":
		mutant.Choose(mutant.Mutant(o.mutant))
		for _, s := range sim.Scenarios {
			if s.Name == o.scenario {
				return one(o, s.Play)
			}
		}
		fmt.Printf("there is no scenario %q\n", o.scenario)
		return false
	}
	mutant.Choose(mutant.Mutant(o.mutant))
	began := time.Now()
	seeds := make([]uint64, o.seeds)
	for i := range seeds {
		seeds[i] = o.from + uint64(i)
	}
	var total sim.Total
	broken := 0
	for r := range sim.PlayAll(seeds) {
		total.Add(r)
		if r.Violation != nil {
			broken++
			fmt.Printf("seed %d: %v\nreplay: %s%s\n", r.Seed, r.Violation, sim.Replay(r.Seed), suffix(o))
		}
		if total.Runs%1000 == 0 {
			fmt.Printf("%v, %d broken, %.0f s\n", total, broken, time.Since(began).Seconds())
		}
	}
	fmt.Printf("%v: %d broken, %.0f s\n", total, broken, time.Since(began).Seconds())
	return broken == 0
}

func suffix(o options) string {
	if o.mutant == 0 {
		return ""
	}
	return " -mutant " + strconv.Itoa(int(o.mutant))
}

func one(o options, play func(io.Writer) sim.Result) bool {
	var out io.Writer
	if o.trace {
		out = os.Stdout
	}
	r := play(out)
	fmt.Printf("seed %d: trace %016x, %d events, %.1f virtual seconds\n", r.Seed, r.Hash, r.Events, float64(r.Micros)/1e6)
	if r.Violation != nil {
		fmt.Println(r.Violation)
	}
	return r.Violation == nil
}
