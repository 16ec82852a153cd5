package bubble

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
)

// boundGroup reads through a chain that leaves out records with a key that was there not long ago.
const boundGroup = "dispatch"

// The chain's window: records are compared with those of their own block, and of so many whole ones in front of it.
const (
	blockBits   = 6
	reachBlocks = 2
)

// keys is how many keys a producer's records take turns with: some copies lie within reach, and some do not.
const keys = 211

// keyOf is the key of a producer's n-th record. Producers share them.
func keyOf(n int) []byte { return fmt.Appendf(nil, "k%d", n*n%keys) }

// bind binds the group from the start of the log.
func (r *run) bind(ctx context.Context) error {
	carrier, done := r.cluster.web()
	defer done()
	bindings := adminapiconnect.NewBindingServiceClient(carrier, r.cluster.machines[0].web())
	_, err := bindings.CreateBinding(ctx, &adminapi.CreateBindingRequest{
		Group: boundGroup, Topics: []string{topic}, StartAt: adminapi.StartAt_START_AT_LOG_START,
		Chain: &adminapi.ChainSpec{
			Stages: []*adminapi.Stage{{Plugin: "dedup-key"}}, Window: &adminapi.Window{Blocks: reachBlocks}, BlockBits: blockBits,
		},
	})
	if err != nil {
		return fmt.Errorf("bind group %s: %w", boundGroup, err)
	}
	return nil
}

// sentinel writes a record to the end of each partition that no chain leaves out: who has it has everything in front of it.
func (r *run) sentinel(ctx context.Context, client *kgo.Client) error {
	for partition := range r.plan.partitions {
		s := &sent{value: fmt.Sprintf("0-%06d-", partition), partition: partition, call: r.history.now()}
		record := &kgo.Record{Topic: topic, Partition: partition, Key: []byte("the last one"), Value: []byte(s.value)}
		err := client.ProduceSync(ctx, record).FirstErr()
		s.ret, s.acked, s.offset, s.err = r.history.now(), err == nil, broker.Offset(record.Offset), err
		r.history.change(func() { r.history.sends = append(r.history.sends, s) })
		if err != nil {
			return fmt.Errorf("write the last record of partition %d: %w", partition, err)
		}
	}
	return nil
}

// checkDecisions asks what was decided of the binding: one row from the start of each partition, and no origin, as nothing is
// ever deleted.
func (r *run) checkDecisions(ctx context.Context) {
	carrier, done := r.cluster.web()
	defer done()
	debug := adminapiconnect.NewDebugServiceClient(carrier, r.cluster.machines[0].web())
	found, err := debug.DumpDecisions(ctx, &adminapi.DumpDecisionsRequest{Group: boundGroup, Topic: topic})
	if err != nil {
		r.wrong("run", "ask for decisions: %v", err)
		return
	}
	whole := len(found.Binding.Rows) == 1 && len(found.Binding.Rows[0].From) == int(r.plan.partitions)
	for _, cut := range found.Binding.Rows[0].From {
		whole = whole && cut.From == 0
	}
	if !whole || len(found.Origins) > 0 {
		r.wrong("decisions", "rows %v, origins %v", found.Binding.Rows, found.Origins)
	}
}

// filtered is the oracle (section 7 of docs/DELIVERY.md) for a chain that is dedup-key alone, from the log's start and with no
// origin: which offsets the filtered log has.
func filtered(log []entry) (has []bool) {
	last := map[string]broker.Offset{} // the newest sighting counts as much as any: what reaches an older one reaches it
	for _, e := range log {
		floor := (e.offset>>blockBits - reachBlocks) << blockBits
		before, sighted := last[e.key]
		has = append(has, !sighted || before < floor)
		last[e.key] = e.offset
	}
	return has
}

// checkBound: the bound group got nothing that the oracle leaves out, and below what it committed everything else.
func (r *run) checkBound(t *truth) {
	if !r.plan.bound {
		return
	}
	wanted := filtered(t.log)
	for _, g := range r.history.reads {
		if g.who[0] == 'b' && g.partition == t.partition && int(g.offset) < len(wanted) && !wanted[g.offset] {
			r.wrong("copy", "partition %d: %s got offset %d, %.9s, whose key %q was there within reach", t.partition, g.who, g.offset, g.value, t.log[g.offset].key)
		}
	}
	r.checkCommits(t, boundGroup, 'b', wanted)
}

// everything is what a group without a chain gets.
func everything(log []entry) []bool { return slices.Repeat([]bool{true}, len(log)) }
