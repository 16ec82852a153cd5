package producer

import (
	"fmt"
	"testing"
)

func TestActiveProducersAreListedInTheirOrder(t *testing.T) {
	s := NewState()
	for _, b := range []Batch{
		{Producer: 9, Epoch: 1, First: 0, Last: 4, Base: 0, End: 5, TimestampMs: 100},
		{Producer: 3, Epoch: 0, First: 0, Last: 0, Base: 5, End: 6, TimestampMs: 101},
		{Producer: 9, Epoch: 1, First: 5, Last: 6, Base: 6, End: 8, TimestampMs: 102},
	} {
		s.Apply(b)
	}
	if got := fmt.Sprint(s.Active()); got != "[{3 0 0 101} {9 1 6 102}]" {
		t.Errorf("active producers %s", got)
	}
}
