package node

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace-io/millrace/internal/vfs"
)

// TestTimestampsOutsideATopicsBoundsAreRefused looks at each record of a batch, and at none where the broker stamps.
func TestTimestampsOutsideATopicsBoundsAreRefused(t *testing.T) {
	s := newSeat(t, vfs.NewMem(), "/data").format()
	n := s.start()
	defer s.stop(n)
	bounds := map[string]string{"message.timestamp.before.max.ms": "60000", "message.timestamp.after.max.ms": "60000"}
	s.createTopic(n, "bounded", 1, bounds)
	s.createTopic(n, "free", 1, nil)
	s.createTopic(n, "stamped", 1, map[string]string{
		"message.timestamp.before.max.ms": "60000", "message.timestamp.after.max.ms": "60000", "message.timestamp.type": "LogAppendTime",
	})
	client := s.client(n)
	for _, test := range []struct {
		topic string
		off   time.Duration
		want  error
	}{
		{"bounded", 0, nil}, {"bounded", -50 * time.Second, nil}, {"bounded", 50 * time.Second, nil},
		{"bounded", -70 * time.Second, kerr.InvalidTimestamp}, {"bounded", 70 * time.Second, kerr.InvalidTimestamp},
		{"free", -1000 * time.Hour, nil}, {"free", 50 * time.Minute, nil},
		{"free", 1000 * time.Hour, kerr.InvalidTimestamp}, // an hour ahead is Kafka's default, too
		{"stamped", -1000 * time.Hour, nil},
	} {
		r := record(test.topic, 0, "x")
		r.Timestamp = time.Now().Add(test.off)
		if err := client.ProduceSync(t.Context(), r).FirstErr(); !errors.Is(err, test.want) {
			t.Errorf("%s, %s away: %v, want %v", test.topic, test.off, err, test.want)
		}
	}
}
