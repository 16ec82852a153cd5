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
	ProfileURL(kind string, seconds int) string
}

// profileSeconds is how long a profile runs: about a scenario.
const profileSeconds = 2

// profileOf takes a CPU profile of the broker in the last round, if that was asked for, beside what comes next.
func (b *bench) profileOf(ctx context.Context, s system, at measure) *task.Group {
	group := task.NewGroup(ctx)
	p, ok := s.(profiled)
	if !ok || b.profile == "" || at.Round != b.rounds-1 {
		return group
	}
	name := filepath.Join(b.profile, fmt.Sprintf("%s-%s-%d.pprof", at.System, at.Scenario, at.Size))
	group.Go("profile", func(ctx context.Context) (err error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.ProfileURL("profile", profileSeconds), nil)
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
		if err := os.MkdirAll(b.profile, 0o700); err != nil {
			return err
		}
		file, err := os.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, response.Body)
		return errors.Join(err, file.Close())
	})
	return group
}
