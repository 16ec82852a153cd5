package kafka

import (
	"context"

	"github.com/millrace-io/millrace/internal/task"
)

// togetherMax bounds how many parts of one request are with the controller at once.
const togetherMax = 64

// together does the same for each part of a request, many at once, and returns what each gave, in order. What reaches the
// controller in one turn costs one sync.
func together[T, R any](parts []T, do func(T) R) []R {
	results := make([]R, len(parts))
	next := make(chan int, len(parts))
	for i := range parts {
		next <- i
	}
	close(next)
	workers := task.NewGroup(context.Background()) // do has the request's own context
	for range min(togetherMax, len(parts)) {
		workers.Go("part of a request", func(context.Context) error {
			for i := range next {
				results[i] = do(parts[i])
			}
			return nil
		})
	}
	_ = workers.Wait() // they return no errors
	return results
}
