package kafka

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker/batch"
)

// narrow gives all requests together a mebibyte, and all responses as much.
func narrow(c *Config) { c.Limits.RequestBytesMax, c.Limits.ResponseBytesMax = 1<<20, 1<<20 }

// beginProduce sends the first sent bytes of a Produce frame of size bytes.
func beginProduce(c *rawConn, size, sent int) {
	frame := append(binary.BigEndian.AppendUint32(nil, uint32(size)), 0, 0, 0, 9, 0, 0, 0, 1)
	c.raw(append(frame, make([]byte, sent)...))
}

func TestX1WhoStopsInALargeFrameDoesNotKeepOthersWaiting(t *testing.T) {
	inBubbleWith(t, narrow, func(t *testing.T, f *face, dial func() *rawConn) {
		id := f.addTopic("orders", 1)
		stopped := dial()
		beginProduce(stopped, 4<<20, 2<<20) // has all the memory there is, and will not go on
		synctest.Wait()
		if !f.server.memory.short() {
			t.Fatal("half a frame of 4 MiB takes nothing from a budget of 1 MiB")
		}
		good := dial()
		start := time.Now()
		ask[*kmsg.ProduceResponse](good, produceRequest(9, "orders", id, -1, makeBatch(t, batch.None, strings.Repeat("x", 90_000))))
		if took := time.Since(start); took > 3*patience {
			t.Errorf("the other client waited %s", took)
		}
		if _, err := stopped.reader.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("who stopped is still connected: %v", err)
		}
		synctest.Wait()
		if left := f.server.memory.left; left != f.server.memory.total {
			t.Errorf("%d of %d bytes are left when nothing is under way", left, f.server.memory.total)
		}
	})
}

func TestX1LargeFramesAreServedInTurnWithinTheBudget(t *testing.T) {
	inBubbleWith(t, narrow, func(t *testing.T, f *face, dial func() *rawConn) {
		id := f.addTopic("orders", 1)
		answered := make(chan bool, 20)
		for range cap(answered) {
			c := dial()
			go func() {
				ask[*kmsg.ProduceResponse](c, produceRequest(9, "orders", id, -1, makeBatch(t, batch.None, strings.Repeat("x", 90_000))))
				answered <- true
			}()
		}
		for range cap(answered) {
			<-answered
		}
		synctest.Wait()
		if left, waiting := f.server.memory.left, len(f.server.memory.waiting); left != f.server.memory.total || waiting != 0 {
			t.Errorf("%d of %d bytes are left and %d wait", left, f.server.memory.total, waiting)
		}
	})
}

func TestX11LargeRequestsWaitForMemoryAndGiveUpInTime(t *testing.T) {
	inBubbleWith(t, narrow, func(t *testing.T, f *face, dial func() *rawConn) {
		id := f.addTopic("orders", 1)
		many := make([]int64, 1500)
		large := fetchRequest(12, "orders", id, many...) // decoded, more than half of the budget
		large.MaxWaitMillis = 60_000
		parked, refused := dial(), dial()
		start := time.Now()
		parked.send(large)
		synctest.Wait()
		refused.send(large)
		if _, err := refused.reader.ReadByte(); err == nil {
			t.Fatal("a second large request was answered while the first had the memory")
		}
		if took := time.Since(start); took > f.server.Limits.Transfer {
			t.Errorf("refused after %s", took)
		}
	})
}

func TestX11ResponsesGetShortWhenManyAreUnderWay(t *testing.T) {
	inBubbleWith(t, narrow, func(t *testing.T, f *face, dial func() *rawConn) {
		id := f.addTopic("orders", 1)
		c := dial()
		for range 8 {
			produced(t, c, "orders", makeBatch(t, batch.None, strings.Repeat("x", 50_000)))
		}
		size := func() int {
			return len(ask[*kmsg.FetchResponse](c, fetchRequest(12, "orders", id, 0)).Topics[0].Partitions[0].RecordBatches)
		}
		if alone := size(); alone < 200_000 || alone > 300_000 {
			t.Fatalf("a response beside no other has %d bytes, want about a quarter of a mebibyte", alone)
		}
		f.server.responding.Add(1 << 20) // what others read slowly
		if short := size(); short < 50_000 || short > 60_000 {
			t.Errorf("a response has %d bytes where none are left, want one batch", short)
		}
		f.server.responding.Add(-1 << 20)
		synctest.Wait() // the last response is counted until its write has returned
		if left := f.server.responding.Load(); left != 0 {
			t.Errorf("%d bytes count as being sent when nothing is", left)
		}
	})
}
