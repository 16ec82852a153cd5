package delivery_test

import (
	"testing"
	"time"

	"github.com/millrace-io/millrace/broker/batch"
	"github.com/millrace-io/millrace/broker/delivery"
)

func TestNothingPassesALetterThatIsNotDurable(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		other := w.bind("b", "v1", nil)
		log, err := w.deadLetters("orders.dlq.a", 0)
		if err != nil {
			t.Fatal(err)
		}
		dead := log.(*memoryLog)
		dead.change(func() { dead.down = true })
		w.append(batch.None, "a=1")
		w.append(batch.None, "e=2", "b=L", "c=2") // a batch goes out whole or not at all: its end is a position
		w.wantRead(id, 0, 1)
		w.wantRead(id, 1, 0)
		w.wantOffsets(other, 0, 0, 1, 3) // only the binding whose topic is down stalls
		if s := w.status(id); s.State != delivery.StateStalled {
			t.Fatalf("status %+v", s)
		}
		dead.change(func() { dead.down = false })
		time.Sleep(20 * time.Second)
		w.wantOffsets(id, 0, 0, 1, 3)
		w.check(id)
		w.stop(true)
		w.dropCaches()
		w.start()
		w.wantOffsets(id, 0, 0, 1, 3)
		if n := len(w.lettersOf(id)); n != 1 {
			t.Fatalf("%d letters for one record: the mark is not read back", n)
		}
	})
}

func TestALetterNamesItsRecordAndReason(t *testing.T) {
	inBubble(t, 1, func(w *world) {
		id := w.bind("a", "v1", nil)
		w.append(batch.Zstd, "k=T")
		w.settle()
		dead, err := w.deadLetters("orders.dlq.a", 0)
		if err != nil {
			t.Fatal(err)
		}
		records, err := dead.(*memoryLog).batches[0].Records(nil)
		if err != nil {
			t.Fatal(err)
		}
		var r batch.Record
		if !records.Next(&r) || string(r.Key) != "k" || string(r.Value) != "T" {
			t.Fatalf("the letter holds %q=%q", r.Key, r.Value)
		}
		got := map[string]string{}
		for _, h := range r.Headers {
			got[string(h.Key)] = string(h.Value)
		}
		for name, want := range map[string]string{
			"h": "v", delivery.HeaderOffset: "0", delivery.HeaderPartition: "0", delivery.HeaderTopicID: topicID.String(),
			delivery.HeaderPlugin: "native@v1", delivery.HeaderReason: "trap: trapped", delivery.HeaderStderr: "oh", delivery.HeaderFuel: "0",
		} {
			if got[name] != want {
				t.Errorf("header %s is %q, want %q", name, got[name], want)
			}
		}
		w.check(id)
	})
}
