package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
	"github.com/millrace-io/millrace/plugins/chain"
)

// buildGo compiles the Go guest of the tests: a real toolchain's output, which nothing checked in could stand for.
func buildGo(t testing.TB) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", out, "./testdata/goguest")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return admit(t, out)
}

func TestGoGuestIsAFunctionOfItsFrame(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a guest with the Go toolchain")
	}
	m := load(t, newEngine(t), buildGo(t), StageConfig{Projection: abi.ProjectValue})
	values := func(values ...string) *abi.Frame {
		f := &abi.Frame{BaseTimestamp: 5, Projection: abi.ProjectValue}
		for i, v := range values {
			f.Records = append(f.Records, abi.Record{Offset: int64(i), Value: []byte(v)})
		}
		return f
	}
	judge := func(f *abi.Frame) (string, uint64, error) {
		var answer abi.Answer
		fuel, err := m.Judge(context.Background(), f, &answer)
		out := ""
		for _, v := range answer.Verdicts {
			out += fmt.Sprintf("%s %s;", v.Kind, v.ID)
		}
		return out, fuel, err
	}
	frame := values(`{"id":"a"}`, `{"id":"b"}`, `{"id":"c","drop":true}`, `{"id":"a"}`, `no json`)
	want := "pass a/1;pass b/2;drop ;pass a/3;pass ;"
	first, fuel, err := judge(frame)
	if err != nil || first != want {
		t.Fatalf("%s, %v; want %s", first, err, want)
	}
	t.Logf("%d fuel for %d records", fuel, len(frame.Records))
	for _, other := range []*abi.Frame{
		values(`{"id":"x"}`), values(`{"panic":"boom"}`), values(`{"spin":true}`), values(`{"deep":100000000}`),
		values(strings.Split(strings.Repeat(`{"id":"`+strings.Repeat("y", 900)+`"};`, 3000), ";")...),
	} {
		if _, _, err := judge(other); err != nil {
			t.Logf("%.80s", err)
		}
		again, fuelAgain, err := judge(frame)
		if err != nil || again != first || fuelAgain != fuel {
			t.Fatalf("after another frame: %s (%d fuel, %v), before %s (%d fuel)", again, fuelAgain, err, first, fuel)
		}
	}
	var f *plugins.Fault
	_, _, err = judge(values(`{"id":"x"}`, `{"panic":"boom"}`))
	if f = asFault(err); f == nil || f.Record != 1 || !strings.Contains(string(f.Stderr), "panic: boom") {
		t.Errorf("a panic: %v", err)
	}
	if _, _, err = judge(values(`{"spin":true}`)); asFault(err) == nil || asFault(err).Reason != plugins.ReasonFuel {
		t.Errorf("an endless loop: %v", err)
	}
}

func TestChainOfGuestsIsolatesWhatFails(t *testing.T) {
	e := newEngine(t)
	first, second := script(t, e, ""), script(t, e, `"q"`)
	c := chain.New([]chain.Stage{first.Stage(context.Background()), second.Stage(context.Background())}, plugins.PolicyDeadLetter, plugins.DefaultLimits())
	report, err := c.Judge(frameOf("p", "t", "r=abc", "w", "d", "k", "m").Records)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range report.Results {
		s := r.Outcome.String()
		if r.Failure != nil {
			s += fmt.Sprintf(" %s at %d", r.Failure.Reason, r.Failure.Stage)
		}
		if r.ID != nil {
			s += " id " + string(r.ID)
		}
		got = append(got, s)
	}
	want := []string{"pass", "lettered trap at 0", "replaced", "lettered fuel at 0", "absent", "lettered malformed-answer at 1", "lettered memory at 0"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("outcomes %q, want %q", got, want)
	}
}
