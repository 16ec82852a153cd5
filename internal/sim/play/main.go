// Command play runs the cluster simulation: one seed with its trace, many seeds, or the suite against every mutant.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/internal/mutant"
	"github.com/millrace-io/millrace/internal/sim"
)

type options struct {
	seed    uint64
	trace   bool
	seeds   uint64
	from    uint64
	mutant  uint
	mutants bool
}

func main() {
	var o options
	flag.Uint64Var(&o.seed, "seed", 0, "play this seed alone")
	flag.BoolVar(&o.trace, "trace", false, "print what happens, with -seed")
	flag.Uint64Var(&o.seeds, "seeds", 1000, "how many seeds to play")
	flag.Uint64Var(&o.from, "from", 1, "the first of them")
	flag.UintVar(&o.mutant, "mutant", 0, "break one rule, by its number; needs -tags mutant")
	flag.BoolVar(&o.mutants, "mutants", false, "break every rule in turn, and print which seed noticed")
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
		return sim.TryMutants(os.Stdout, o.seeds)
	case o.seed != 0:
		mutant.Choose(mutant.Mutant(o.mutant))
		return one(o)
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
			fmt.Printf("seed %d: %v\nreplay: go run ./internal/sim/play -seed %d -trace%s\n", r.Seed, r.Violation, r.Seed, suffix(o))
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

func one(o options) bool {
	r := sim.Run(o.seed, nil)
	if o.trace {
		r = sim.Run(o.seed, os.Stdout)
	}
	fmt.Printf("seed %d: trace %016x, %d events, %.1f virtual seconds\n", r.Seed, r.Hash, r.Events, float64(r.Micros)/1e6)
	if r.Violation != nil {
		fmt.Println(r.Violation)
	}
	return r.Violation == nil
}
