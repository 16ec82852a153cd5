package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/millrace-io/millrace/internal/task"
)

// profiled is a system whose CPU can be profiled from outside.
type profiled interface {
	// ProfileURLs are where each of its processes is asked, by the process's name; one alone needs none.
	ProfileURLs(kind string, seconds int) map[string]string
}

// profileKinds are what is asked for: CPU time, and what was allocated in the meantime.
var profileKinds = map[string]string{"profile": "cpu", "allocs": "allocs"}

// profileOf takes profiles of the broker in the last round, if that was asked for, beside what comes next.
func (b *bench) profileOf(ctx context.Context, s system, at measure) *task.Group {
	group := task.NewGroup(ctx)
	p, ok := s.(profiled)
	if !ok || b.profile == "" || at.Round != b.rounds-1 {
		return group
	}
	for kind, name := range profileKinds {
		for of, url := range p.ProfileURLs(kind, max(int(b.profileFor.Seconds()), 1)) {
			name := filepath.Join(b.profile, fmt.Sprintf("%s%s-%s-%d.%s.pprof", at.System, of, at.Scenario, at.Size, name))
			group.Go("profile", func(ctx context.Context) error { return fetch(ctx, url, name) })
		}
	}
	return group
}

// fetch writes what the URL answers to a file.
func fetch(ctx context.Context, url, name string) (err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the broker answered %s", response.Status)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, response.Body)
	return errors.Join(err, file.Close())
}
