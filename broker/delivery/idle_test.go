package delivery_test

import (
	"runtime"
	"testing"

	"github.com/millrace-io/millrace/broker"
)

// Ten thousand partitions that nobody bound a chain to cost no goroutine (RM2).
func TestAPartitionWithoutABindingHasNoGoroutine(t *testing.T) {
	w := newWorld(t, 1)
	w.start()
	defer w.stop(false)
	before := runtime.NumGoroutine()
	for n := range int32(100) {
		if err := w.host.Lead(broker.TopicPartition{Topic: broker.TopicID{0xee}, Partition: n}, 1, w.log); err != nil {
			t.Fatal(err)
		}
	}
	if more := runtime.NumGoroutine() - before; more > 10 {
		t.Fatalf("100 partitions run %d goroutines", more)
	}
}
