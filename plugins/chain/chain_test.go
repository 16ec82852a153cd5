package chain

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// scripted is a stage that does to each record what the first letter of its key says:
//
//	p pass   d drop   r replace (value becomes upper case)   l dead-letter   u unique by value   k unique by key
//	x fails always, and reports itself   h fails unless alone, and reports itself
//	y fails always, unreported   b broker's trouble
type scripted struct {
	calls  []string // the keys of every frame that was judged
	bases  []int64
	column int // which letter of the key
}

var errBroker = errors.New("no module")

func (s *scripted) Projection() abi.Projection { return abi.ProjectKey }

func (s *scripted) Judge(f *abi.Frame, answer *abi.Answer) (uint64, error) {
	keys := make([]string, 0, len(f.Records))
	for _, r := range f.Records {
		keys = append(keys, string(r.Key))
	}
	s.calls = append(s.calls, strings.Join(keys, " "))
	s.bases = append(s.bases, f.BaseOffset)
	answer.Verdicts = answer.Verdicts[:0]
	for i, r := range f.Records {
		var v abi.Verdict
		switch r.Key[s.column] {
		case 'd':
			v.Kind = abi.Drop
		case 'r':
			v.Kind, v.Output = abi.Replace, &abi.Output{Key: r.Key, Value: []byte(strings.ToUpper(string(r.Value)))}
		case 'l':
			v.Kind, v.Output, v.Code = abi.DeadLetter, &abi.Output{Text: "asked"}, 9
		case 'u':
			v.Unique, v.ID = abi.UniqueByID, r.Value
		case 'k':
			v.Unique, v.ID = abi.UniqueByKey, r.Key
		case 'x':
			return 5, &plugins.Fault{Reason: plugins.ReasonTrap, Record: i, Text: "unreachable", Fuel: 5, Stderr: []byte("panic")}
		case 'y':
			return 6, &plugins.Fault{Reason: plugins.ReasonFuel, Record: -1, Text: "spent", Fuel: 6}
		case 'h':
			if len(f.Records) > 1 {
				return 7, &plugins.Fault{Reason: plugins.ReasonFuel, Record: i, Text: "spent", Fuel: 7}
			}
		case 'b':
			return 0, errBroker
		}
		answer.Verdicts = append(answer.Verdicts, v)
	}
	return 1, nil
}

func batch(keys ...string) []Record {
	var records []Record
	for i, k := range keys {
		records = append(records, Record{Offset: int64(100 + i), Timestamp: int64(1000 + i), Key: []byte(k), Value: []byte("v" + k)})
	}
	return records
}

func judge(t *testing.T, policy plugins.ErrorPolicy, stages int, keys ...string) (*Report, []*scripted) {
	t.Helper()
	var scripts []*scripted
	var chain []Stage
	for i := range stages {
		s := &scripted{column: i}
		scripts, chain = append(scripts, s), append(chain, s)
	}
	records := batch(keys...)
	report, err := New(chain, policy, plugins.DefaultLimits()).Judge(records)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(records, batch(keys...)) {
		t.Fatal("judging changed the caller's records")
	}
	return report, scripts
}

func outcomes(r *Report) string {
	var out []string
	for _, result := range r.Results {
		out = append(out, result.Outcome.String())
	}
	return strings.Join(out, " ")
}

func TestNextStageSeesSurvivorsUncut(t *testing.T) {
	report, s := judge(t, plugins.PolicyDeadLetter, 2, "dp", "rp", "lp", "pr", "pd", "up")
	if got := outcomes(report); got != "absent replaced lettered replaced absent pass" {
		t.Errorf("outcomes: %s", got)
	}
	if want := []string{"rp pr pd up"}; !reflect.DeepEqual(s[1].calls, want) || s[1].bases[0] != 100 {
		t.Errorf("stage 2 saw %q at %v, want %q at the canonical base", s[1].calls, s[1].bases, want)
	}
	if string(report.Results[1].Record.Value) != "VRP" || string(report.Results[3].Record.Value) != "VPR" || string(report.Results[5].ID) != "vup" {
		t.Errorf("results: %+v", report.Results)
	}
	if f := report.Results[2].Failure; f == nil || f.Reason != plugins.ReasonVerdict || f.Text != "asked" || f.Code != 9 {
		t.Errorf("letter: %+v", f)
	}
}

func TestOnlyWhatComesThroughKeepsItsID(t *testing.T) {
	report, _ := judge(t, plugins.PolicyDeadLetter, 2, "up", "ud", "ul", "ux", "uu", "pu", "ur")
	var got []string
	for _, r := range report.Results {
		got = append(got, string(r.ID))
	}
	if want := []string{"vup", "", "", "", "", "vpu", "vur"}; !reflect.DeepEqual(got, want) {
		t.Errorf("ids %q, want %q", got, want)
	}
	if f := report.Results[4].Failure; f == nil || f.Stage != 1 || f.Reason != plugins.ReasonMalformed {
		t.Errorf("a second unique: %+v", f)
	}
}

func TestFailureIsConfirmedAloneAndJudgingGoesOnBehindIt(t *testing.T) {
	report, s := judge(t, plugins.PolicyDeadLetter, 1, "p1", "d2", "x3", "p4", "r5")
	want := []string{"p1 d2 x3 p4 r5", "x3", "p1 d2", "p4 r5"}
	if !reflect.DeepEqual(s[0].calls, want) {
		t.Errorf("calls %q, want %q", s[0].calls, want)
	}
	for _, base := range s[0].bases {
		if base != 100 {
			t.Errorf("a cut frame has base %d, not the canonical one", base)
		}
	}
	if got := outcomes(report); got != "pass absent lettered pass replaced" {
		t.Errorf("outcomes: %s", got)
	}
	f := report.Results[2].Failure
	if f == nil || f.Reason != plugins.ReasonTrap || string(f.Stderr) != "panic" || f.Fuel != 5 || report.Fuel[0] != 12 {
		t.Errorf("failure %+v, fuel %v", f, report.Fuel)
	}
}

func TestUnconfirmedOrUnnamedFailureJudgesEveryRecordAlone(t *testing.T) {
	report, s := judge(t, plugins.PolicyDeadLetter, 1, "p1", "h2", "p3")
	if want := []string{"p1 h2 p3", "h2", "p1", "p3"}; !reflect.DeepEqual(s[0].calls, want) || outcomes(report) != "pass pass pass" {
		t.Errorf("unconfirmed: calls %q, outcomes %s", s[0].calls, outcomes(report))
	}
	report, s = judge(t, plugins.PolicyDeadLetter, 1, "p1", "y2", "p3")
	if want := []string{"p1 y2 p3", "p1", "y2", "p3"}; !reflect.DeepEqual(s[0].calls, want) || outcomes(report) != "pass lettered pass" {
		t.Errorf("unnamed: calls %q, outcomes %s", s[0].calls, outcomes(report))
	}
}

func TestEightFailuresSwitchAFrameToSingleRecords(t *testing.T) {
	keys := make([]string, 40)
	for i := range keys {
		keys[i] = fmt.Sprintf("p%d", i)
		if i%3 == 0 {
			keys[i] = fmt.Sprintf("x%d", i)
		}
	}
	report, s := judge(t, plugins.PolicySkip, 1, keys...)
	frames, after := 0, -1
	for i, call := range s[0].calls {
		if strings.HasPrefix(call, "x") && !strings.Contains(call, " ") {
			if frames++; frames == 8 {
				after = i + 1
			}
		}
	}
	for _, call := range s[0].calls[after:] {
		if strings.Contains(call, " ") {
			t.Errorf("a frame of several records after the eighth failure: %q", call)
		}
	}
	for i, r := range report.Results {
		if (i%3 == 0) != (r.Outcome == Absent) {
			t.Errorf("record %d: %s", i, r.Outcome)
		}
	}
}

func TestPolicyDecidesWhatAFailureBecomes(t *testing.T) {
	for policy, want := range map[plugins.ErrorPolicy]string{
		plugins.PolicyDeadLetter: "lettered lettered pass", plugins.PolicyStop: "lettered lettered pass",
		plugins.PolicySkip: "absent absent pass", plugins.PolicyPass: "replaced pass pass",
	} {
		report, _ := judge(t, policy, 2, "rx", "lp", "pp")
		if got := outcomes(report); got != want {
			t.Errorf("%s: %s, want %s", policy, got, want)
		}
		if report.Results[0].Failure == nil || report.Results[1].Failure == nil || report.Results[2].Failure != nil {
			t.Errorf("%s: a failure is told under every policy", policy)
		}
	}
}

func TestTroubleOfTheBrokerIsNoVerdict(t *testing.T) {
	c := New([]Stage{&scripted{}}, plugins.PolicyDeadLetter, plugins.DefaultLimits())
	if _, err := c.Judge(batch("p1", "b2")); !errors.Is(err, errBroker) {
		t.Errorf("error is %v", err)
	}
	if report, err := c.Judge(batch("d1")); err != nil || outcomes(report) != "absent" {
		t.Errorf("the chain goes on afterwards: %v", err)
	}
}

// TestEveryRecordGetsTheAnswerItGetsAlone walks random frames through random chains: for guests that judge records one
// by one, isolation must come to what judging each record alone comes to, within a bound on calls.
func TestEveryRecordGetsTheAnswerItGetsAlone(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		stages := 1 + random.IntN(3)
		keys := make([]string, 1+random.IntN(60))
		for i := range keys {
			var key []byte
			for range stages {
				letters := "ppppppdrlkxhy"
				if random.IntN(4) > 0 {
					letters = "pppppdrk"
				}
				key = append(key, letters[random.IntN(len(letters))])
			}
			keys[i] = string(key)
		}
		policy := plugins.ErrorPolicy(1 + random.IntN(4))
		report, scripts := judge(t, policy, stages, keys...)
		for i, key := range keys {
			alone, _ := judge(t, policy, stages, key)
			got, want := report.Results[i], alone.Results[0]
			if got.Outcome != want.Outcome || string(got.ID) != string(want.ID) || (got.Failure == nil) != (want.Failure == nil) {
				t.Fatalf("seed %d: record %d (%s) is %+v, alone %+v", seed, i, key, got, want)
			}
			if got.Outcome == Replaced && strings.ToUpper("v"+key) != string(got.Record.Value) {
				t.Fatalf("seed %d: record %d has value %q", seed, i, got.Record.Value)
			}
		}
		for _, s := range scripts {
			if bound := len(keys) + 3*8 + 1; len(s.calls) > bound {
				t.Fatalf("seed %d: %d calls for %d records", seed, len(s.calls), len(keys))
			}
		}
	}
}

func TestFramesAreCutByCountAndProjectedBytes(t *testing.T) {
	limits := plugins.DefaultLimits()
	limits.FrameRecordsMax, limits.FrameBytesMax = 3, 10
	sized := func(sizes ...int) []Record {
		var records []Record
		for _, n := range sizes {
			records = append(records, Record{Key: make([]byte, n), Value: make([]byte, 100)})
		}
		return records
	}
	for _, c := range []struct {
		records []Record
		want    int
	}{
		{sized(1), 1}, {sized(1, 1, 1), 3}, {sized(1, 1, 1, 1), 3}, {sized(5, 5), 2}, {sized(5, 5, 1), 2}, {sized(5, 6), 1}, {sized(50, 1), 1}, {sized(0, 50), 1},
	} {
		if got := FrameEnd(c.records, abi.ProjectKey, limits); got != c.want {
			t.Errorf("%d records: %d, want %d", len(c.records), got, c.want)
		}
	}
}
