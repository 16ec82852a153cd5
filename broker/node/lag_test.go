package node

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A follower that is down falls behind in the metrics of who leads, by records and by time, until it is back.
func TestAScrapeTellsHowFarFollowersAreBehind(t *testing.T) {
	c := newSettledTrio(t)
	tp := c.placed("orders", 1, 2, 3)
	c.level(tp.Topic)
	awaitSamples(t, c.nodes[0], map[string]string{`millrace_replication_lag_records{follower="3"}`: "0", `millrace_replication_lag_seconds{follower="3"}`: "0"})
	c.stop(2)
	client := c.seats[0].client(c.nodes[0], kgo.RequiredAcks(kgo.AllISRAcks()))
	for range 5 {
		if err := client.ProduceSync(t.Context(), record("orders", 0, "value")).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	awaitSamples(t, c.nodes[0], map[string]string{`millrace_replication_lag_records{follower="3"}`: "5", `millrace_replication_lag_records{follower="2"}`: "0"})
	c.await("a lag of a second", func() bool {
		seconds, err := strconv.ParseFloat(scrape(t, c.nodes[0])[`millrace_replication_lag_seconds{follower="3"}`], 64)
		return err == nil && seconds >= 1
	})
	c.nodes[2] = c.seats[2].start()
	awaitSamples(t, c.nodes[0], map[string]string{`millrace_replication_lag_records{follower="3"}`: "0", `millrace_replication_lag_seconds{follower="3"}`: "0"})
	size := scrape(t, c.nodes[0])[`millrace_topic_size_bytes{topic="orders"}`]
	bytes, err := strconv.Atoi(size)
	if err != nil {
		t.Fatal(err)
	}
	awaitSamples(t, c.nodes[0], map[string]string{`millrace_replication_bytes_total{direction="sent"}`: fmt.Sprint(2 * bytes)})
	for _, follower := range c.nodes[1:] {
		awaitSamples(t, follower, map[string]string{
			`millrace_replication_bytes_total{direction="sent"}`: "0", `millrace_replication_bytes_total{direction="received"}`: size})
	}
	for _, name := range []string{`millrace_quic_rtt_seconds{peer="2"}`, `millrace_quic_cwnd_bytes{peer="2"}`} {
		if got := scrape(t, c.nodes[0])[name]; got == "" || got == "0" {
			t.Errorf("%s is %q", name, got)
		}
	}
}
