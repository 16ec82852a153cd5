package task

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Group is a set of named goroutines with one fate. It is safe for concurrent use.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wait   sync.WaitGroup
}

// NewGroup returns a group whose context ends with parent, with the first error of a member, or with Stop.
func NewGroup(parent context.Context) *Group {
	ctx, cancel := context.WithCancelCause(parent)
	return &Group{ctx: ctx, cancel: cancel}
}

// errStopped is the cause of a group's end when nothing went wrong.
var errStopped = errors.New("stopped")

// Context ends when the group does.
func (g *Group) Context() context.Context { return g.ctx }

// Go runs f until it returns. An error other than the context's own ends the group and is what Wait returns, with
// name in front.
func (g *Group) Go(name string, f func(ctx context.Context) error) {
	g.wait.Go(func() {
		err := f(g.ctx)
		if err != nil && !errors.Is(err, context.Canceled) {
			g.cancel(fmt.Errorf("%s: %w", name, err))
		}
	})
}

// Stop asks every member to end. It does not wait.
func (g *Group) Stop() { g.cancel(errStopped) }

// Wait returns when every member has ended: the first error, or nil.
func (g *Group) Wait() error {
	g.wait.Wait()
	cause := context.Cause(g.ctx)
	g.cancel(errStopped)
	if cause == nil || errors.Is(cause, errStopped) || errors.Is(cause, context.Canceled) {
		return nil
	}
	return cause
}
