package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/millrace-io/millrace/broker/adminapi"
)

// header names the columns of the table.
func (h *harness) header() {
	fmt.Printf("%5s %8s %8s %8s %8s %8s %8s %6s %6s %7s %7s %6s %6s\n", "kills", "ready ms", "check ms", "log", "acked",
		"alpha", "beta", "copies", "drops", "letters", "redeliv", "behind", "rows")
}

// line prints a row of the table: what one kill did, and what the checkers saw after it.
func (h *harness) line(how string, readyIn time.Duration, c checked) {
	_, acked, _, _ := h.counts()
	redelivered := 0
	for _, g := range h.groups {
		_, again, _ := g.counts()
		redelivered += again
	}
	verdict := "equal"
	if c.anomalies > 0 || c.took == 0 {
		verdict = "WRONG"
	}
	fmt.Printf("%5d %8d %8d %8d %8d %8d %8d %6d %6d %7d %7d %6d %6d %s (%s)\n", h.kills, readyIn.Milliseconds(), c.took.Milliseconds(), c.records, acked,
		c.visible["alpha"], c.visible["beta"], c.duplicate, c.dropped, c.letters, redelivered, c.behind, c.rows, verdict, how)
}

// counts returns the ledger's counts; problems found meanwhile are anomalies.
func (h *harness) counts() (sent, acked, unknown int, problems []string) {
	sent, acked, unknown, problems = h.ledger.counts()
	h.complain(problems...)
	return sent, acked, unknown, problems
}

func (h *harness) summary(err error) {
	sent, acked, unknown, _ := h.counts()
	c := h.totals.last
	fmt.Printf("\n%d kills (%d while starting), %d clean stops, %d pauses, caches deleted before %d starts, %s\n", h.kills, h.totals.killedStarting, h.totals.cleanStops, h.totals.pauses, h.totals.cachesDeleted,
		time.Since(h.started).Round(time.Second))
	fmt.Printf("records: %d produced, %d acknowledged, %d of unknown outcome, %d in the log at the last check\n", sent, acked, unknown, c.records)
	fmt.Printf("chains: %d copies and %d drops left out, %d offsets lettered, %d rows; at most %d letters repeated\n",
		c.duplicate, c.dropped, c.letters, c.rows, h.totals.repeatedLetters)
	if h.cutovers != nil {
		fmt.Printf("cutovers: %d asked for, %d confirmed; %d topics made and deleted\n", h.cutovers.asked.Load(), h.cutovers.done.Load(), h.cutovers.topics.Load())
	}
	if h.table != nil {
		fmt.Printf("table: %d records written, %d records read at the checks\n", len(h.table.sent), h.totals.tableReads)
	}
	if h.options.retention {
		fmt.Printf("retention: %d partitions of bindings with a moved origin at the last check; a group found overtaken %d times\n", c.origins, h.totals.overtaken)
	}
	for _, g := range h.groups {
		received, again, troubles := g.counts()
		fmt.Printf("group %s (%s): %d records delivered, %d redelivered, %d polls or commits ended with an error\n", g.name, g.how, received, again, troubles)
	}
	verdict := "no anomaly"
	if h.wrong > 0 || err != nil {
		verdict = fmt.Sprintf("%d ANOMALIES", max(h.wrong, 1))
	}
	fmt.Printf("oracle: %d comparisons over %d delivered records; %s\n", h.totals.comparisons, h.totals.judged, verdict)
}

// status is what the broker says of a binding that does not move.
func (h *harness) status(ctx context.Context, b bound) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := h.sdk.Bindings().DescribeBinding(ctx, &adminapi.DescribeBindingRequest{Group: b.name, Topic: topic})
	if err != nil {
		return "; describe: " + err.Error()
	}
	var text strings.Builder
	for _, p := range r.Partitions {
		fmt.Fprintf(&text, "; partition %d is %s (%s), judged to %d, last stable %d, last error %q", p.Partition, p.State, p.Reason, p.JudgedTo, p.LastStable, p.LastError)
	}
	return text.String()
}
