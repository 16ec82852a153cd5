package chain

import (
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// Stage judges frames. Every call is a function of the frame alone.
type Stage interface {
	// Projection is what the guest is given of each record.
	Projection() abi.Projection
	// Judge fills answer with one verdict a record and returns the fuel that was spent. A *plugins.Fault in the error
	// is the record's; any other error is the broker's own trouble.
	Judge(frame *abi.Frame, answer *abi.Answer) (fuel uint64, err error)
}

// Outcome is what becomes of a record, before duplicates are left out.
type Outcome uint8

// The outcomes; the numbers are those of verdict files.
const (
	Passed   Outcome = 0
	Absent   Outcome = 1
	Replaced Outcome = 2
	Lettered Outcome = 3 // under the policy stop: where the partition stops
)

func (o Outcome) String() string {
	switch o {
	case Passed:
		return "pass"
	case Absent:
		return "absent"
	case Replaced:
		return "replaced"
	case Lettered:
		return "lettered"
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// Failure tells why a record did not go the way of its verdict, or that its verdict was dead-letter.
type Failure struct {
	Stage  int
	Reason plugins.Reason
	Text   string
	Code   uint32 // the plugin's own error code, with ReasonVerdict
	Fuel   uint64 // spent by the call that judged the record
	Stderr []byte
}

// Result is what the chain says about one record. Its slices live until the next Judge.
type Result struct {
	Outcome Outcome
	// Record is the record as the last stage left it, if Replaced, else nil.
	Record *Record
	// ID is not nil if the record came through every stage and one of them said unique: it is a sighting.
	ID []byte
	// Failure is not nil if a stage failed at the record or dead-lettered it, whatever the policy made of it; with the
	// policy pass the last such stage.
	Failure *Failure
}

// Report is the outcome of one frame.
type Report struct {
	Results []Result // one a record
	Fuel    []uint64 // by stage, every call counted
	Calls   int      // of guests
}

// Chain judges frames through its stages.
type Chain struct {
	stages   []Stage
	policy   plugins.ErrorPolicy
	failures int // of one stage in one frame, that switch it to single records

	// The rest is scratch of one Judge.
	base    abi.Frame
	report  Report
	answers []*abi.Answer // every call of a frame has its own, so that results need no copying
	used    int
	current []Record // the survivors so far, as the last stage left them: the caller's until something differs
	alive   []int    // current[i] is record alive[i] of the canonical frame
	room    []Record // for current, once it is the chain's own
	owned   bool     // it is; before, no record was taken out from between others, and none replaced
}

// New returns a chain over stages in order. None is the identity.
func New(stages []Stage, policy plugins.ErrorPolicy, limits plugins.Limits) *Chain {
	return &Chain{stages: stages, policy: policy, failures: int(limits.FrameFailuresMax)}
}

// Projection is the union over the stages, by which canonical frames are cut.
func (c *Chain) Projection() abi.Projection {
	var union abi.Projection
	for _, s := range c.stages {
		union |= s.Projection()
	}
	return union
}

// Judge judges one canonical frame. The report and what it points to live until the next call; so must the records'
// bytes. An error is the broker's trouble, and then nothing was decided.
func (c *Chain) Judge(records []Record) (*Report, error) {
	c.report.Results = append(c.report.Results[:0], make([]Result, len(records))...)
	c.report.Fuel = append(c.report.Fuel[:0], make([]uint64, len(c.stages))...)
	c.report.Calls, c.used, c.owned = 0, 0, false
	if len(records) == 0 {
		return &c.report, nil
	}
	c.base = abi.Frame{BaseOffset: records[0].Offset, BaseTimestamp: records[0].Timestamp}
	c.current, c.alive = records, slices.Grow(c.alive[:0], len(records))[:len(records)]
	for i := range c.alive {
		c.alive[i] = i
	}
	for i, stage := range c.stages {
		run := stageRun{chain: c, index: i, stage: stage}
		if err := run.judge(); err != nil {
			return nil, fmt.Errorf("stage %d: %w", i, err)
		}
		if run.keepSurvivors(); len(c.alive) == 0 {
			break
		}
	}
	if !c.owned {
		return &c.report, nil
	}
	for i, at := range c.alive {
		if r := &c.report.Results[at]; r.Outcome == Replaced {
			r.Record = &c.current[i]
		}
	}
	return &c.report, nil
}

// own makes current the chain's, to be changed. Most frames end without.
func (c *Chain) own() {
	if !c.owned {
		c.room = append(c.room[:0], c.current...)
		c.current, c.owned = c.room, true
	}
}

func (c *Chain) nextAnswer() *abi.Answer {
	if c.used == len(c.answers) {
		c.answers = append(c.answers, new(abi.Answer))
	}
	c.used++
	return c.answers[c.used-1]
}

// stageRun is one stage over the survivors of the stage before, the chain's current records.
type stageRun struct {
	chain    *Chain
	index    int
	stage    Stage
	failures int
	losses   bool      // some record does not go on
	pending  []stretch // what is left to judge, the next one last
}

// stretch is current[from:to].
type stretch struct{ from, to int }

func (r *stageRun) judge() error {
	r.pending = append(r.pending, stretch{0, len(r.chain.current)})
	for len(r.pending) > 0 {
		next := r.pending[len(r.pending)-1]
		r.pending = r.pending[:len(r.pending)-1]
		fault, err := r.call(next)
		if err != nil {
			return err
		}
		if fault == nil {
			continue
		}
		if next.to-next.from == 1 {
			r.fail(next.from, fault)
			continue
		}
		if err := r.isolate(next, fault); err != nil {
			return err
		}
	}
	return nil
}

// isolate confirms the record that a failed frame names, and puts what is left of the frame back.
func (r *stageRun) isolate(failed stretch, fault *plugins.Fault) error {
	at := failed.from + fault.Record
	if fault.Record < 0 || at >= failed.to {
		r.pending = append(r.pending, failed)
		r.splitAll()
		return nil
	}
	alone, err := r.call(stretch{at, at + 1})
	if err != nil {
		return err
	}
	r.push(at+1, failed.to)
	r.push(failed.from, at)
	if alone != nil {
		r.fail(at, alone)
	}
	if alone == nil || r.failures >= r.chain.failures {
		r.splitAll()
	}
	return nil
}

func (r *stageRun) push(from, to int) {
	if from < to {
		r.pending = append(r.pending, stretch{from, to})
	}
}

// splitAll makes every record that is left a frame of its own.
func (r *stageRun) splitAll() {
	var single []stretch
	for _, s := range r.pending {
		for at := s.to - 1; at >= s.from; at-- {
			single = append(single, stretch{at, at + 1})
		}
	}
	r.pending = single
}

// call judges a stretch as one frame and applies its verdicts. A fault is not applied.
func (r *stageRun) call(s stretch) (*plugins.Fault, error) {
	c := r.chain
	frame := c.base
	frame.Projection, frame.Records = r.stage.Projection(), c.current[s.from:s.to]
	answer := c.nextAnswer()
	fuel, err := r.stage.Judge(&frame, answer)
	c.report.Calls++
	c.report.Fuel[r.index] += fuel
	var fault *plugins.Fault
	if errors.As(err, &fault) {
		return fault, nil
	}
	if err != nil {
		return nil, err
	}
	if len(answer.Verdicts) != len(frame.Records) {
		return nil, fmt.Errorf("%d verdicts for %d records", len(answer.Verdicts), len(frame.Records))
	}
	alive := c.alive[s.from:s.to]
	for i := range answer.Verdicts {
		v := &answer.Verdicts[i]
		// Most verdicts are these.
		if result := &c.report.Results[alive[i]]; v.Kind == abi.Pass && (v.Unique == abi.NotUnique || result.ID == nil) {
			if v.Unique != abi.NotUnique {
				result.ID = v.ID
			}
			continue
		}
		r.apply(s.from+i, v, fuel)
	}
	return nil, nil
}

// apply turns a verdict into the record's state.
func (r *stageRun) apply(at int, v *abi.Verdict, fuel uint64) {
	result := &r.chain.report.Results[r.chain.alive[at]]
	if v.Unique != abi.NotUnique {
		if result.ID != nil {
			text := "a second stage gave the record an id; a chain has one"
			r.settle(at, Failure{Reason: plugins.ReasonMalformed, Text: text, Fuel: fuel})
			return
		}
		result.ID = v.ID
	}
	switch v.Kind {
	case abi.Pass:
	case abi.Drop:
		result.Outcome = Absent
		r.losses = true
	case abi.Replace:
		result.Outcome = Replaced
		r.chain.own()
		record := &r.chain.current[at]
		record.Key, record.Value, record.Headers = v.Output.Key, v.Output.Value, v.Output.Headers
	case abi.DeadLetter:
		r.settle(at, Failure{Reason: plugins.ReasonVerdict, Text: v.Output.Text, Code: v.Code, Fuel: fuel})
	}
}

// fail is a fault that happened to the record alone.
func (r *stageRun) fail(at int, f *plugins.Fault) {
	r.failures++
	r.settle(at, Failure{Reason: f.Reason, Text: f.Text, Fuel: f.Fuel, Stderr: f.Stderr})
}

// settle does with a record what the policy says.
func (r *stageRun) settle(at int, f Failure) {
	f.Stage = r.index
	f.Text = cut(f.Text, plugins.TextBytesMax)
	result := &r.chain.report.Results[r.chain.alive[at]]
	result.Failure = &f
	switch r.chain.policy {
	case plugins.PolicyPass:
	case plugins.PolicySkip:
		result.Outcome = Absent
		r.losses = true
	default:
		result.Outcome = Lettered
		r.losses = true
	}
}

// cut keeps at most limit bytes of s, and no half of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && s[limit]&0xC0 == 0x80 {
		limit--
	}
	return s[:limit]
}

// keepSurvivors takes out what does not go on to the next stage. The ids of those records do not count.
func (r *stageRun) keepSurvivors() {
	if !r.losses {
		return
	}
	c, n := r.chain, 0
	for i, of := range c.alive {
		result := &c.report.Results[of]
		if result.Outcome == Absent || result.Outcome == Lettered {
			result.ID = nil
			continue
		}
		if n < i {
			c.own()
			c.current[n], c.alive[n] = c.current[i], of
		}
		n++
	}
	c.current, c.alive = c.current[:n], c.alive[:n]
}
