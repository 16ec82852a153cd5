package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
)

// saved is a result as it lies in the workshop, so that a document can be made of several runs: the whole takes long.
type saved struct {
	Client, Version, From string
	Over, Build           string
	Step, Outcome         string
	Why, Details          string
}

// book collects a run's results and keeps them at once.
type book struct {
	name  string // of the file
	build string // of the broker
	run   report
	all   report // of earlier runs too
	err   error
}

func (b *book) add(more report) {
	for i := range more {
		more[i].build = b.build
	}
	b.run = append(b.run, more...)
	all, err := keep(b.name, b.run)
	b.all, b.err = all, errors.Join(b.err, err)
}

// keep adds a run's results to those of earlier runs, of which it replaces those of the same clients, and returns all.
func keep(name string, run report) (report, error) {
	var before []saved
	text, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(text, &before)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return run, err
	}
	var all report
	for _, s := range before {
		same := func(r result) bool {
			return r.client == s.Client && r.over == s.Over && (r.version == s.Version || r.version == "unknown")
		}
		if !slices.ContainsFunc(run, same) {
			all = append(all, result{s.Client, s.Version, s.From, s.Over, s.Build, s.Step, outcome(s.Outcome), s.Why, s.Details})
		}
	}
	all = append(all, run...)
	after := make([]saved, len(all))
	for i, r := range all {
		after[i] = saved{r.client, r.version, r.from, r.over, r.build, r.step, string(r.outcome), r.why, r.details}
	}
	if text, err = json.MarshalIndent(after, "", "\t"); err != nil {
		return all, err
	}
	return all, os.WriteFile(name, text, 0o644)
}
