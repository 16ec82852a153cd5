package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	suiteModule  = "github.com/twmb/franz-go"
	suiteTimeout = 6 * time.Minute
	suiteRecords = 50_000
)

// suiteWaits names the tests that cannot pass yet, and the capability that each waits for. They are not run, because they
// wait for records that nobody could produce.
var suiteWaits = []wait{{test: "TestTxnEtl", capability: "transactions"}}

// runSuite compiles franz-go's own tests where its module lies and runs them against the broker.
func runSuite(ctx context.Context, shop workshop, broker *brokerProcess) report {
	started := time.Now()
	base := result{client: suiteName, version: "unknown", from: "Go", over: broker.way.told}
	dir, version, err := suiteSource(ctx, shop)
	if err != nil {
		return report{base.failed("install", err)}
	}
	base.version = version
	program := shop.bin("kgo.test")
	if err := shell(ctx, dir, "go", "test", "-c", "-o", program, "."); err != nil {
		return report{base.failed("install", err)}
	}
	run := testRun{dir: dir, program: program, timeout: suiteTimeout, env: []string{ // Some of the tests read the package's source.
		"KGO_SEEDS=" + broker.client, fmt.Sprintf("KGO_TEST_RF=%d", broker.way.replicas()), "KGO_LOG_LEVEL=none", fmt.Sprintf("KGO_TEST_RECORDS=%d", suiteRecords)}}
	for _, w := range suiteWaits {
		run.without = append(run.without, w.test)
	}
	tests, err := run.tests(ctx)
	if err != nil {
		return report{base.failed("run", err)}
	}
	for _, name := range run.without {
		tests.outcomes[name] = "not run"
	}
	results := tests.report(base, suiteWaits)
	fmt.Printf("%s %s: %s, %.1f s\n", suiteName, version, results[0].why, time.Since(started).Seconds())
	return results
}

func (r result) failed(step string, err error) result {
	r.step, r.outcome, r.why = step, failed, err.Error()
	var skip skipped
	if errors.As(err, &skip) {
		r.outcome = left
	}
	return r
}

// suiteSource finds the package in the module cache, in the version that go.mod pins.
func suiteSource(ctx context.Context, shop workshop) (dir, version string, err error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}} {{.Version}}", suiteModule)
	cmd.Dir = shop.root
	out, err := cmd.Output()
	if err != nil {
		return "", "", skipped(fmt.Sprintf("find %s: %v", suiteModule, err))
	}
	dir, version, _ = strings.Cut(strings.TrimSpace(string(out)), " ")
	return dir + "/pkg/kgo", strings.TrimPrefix(version, "v"), nil
}

// tested is what a test run told: how each top-level test ended, and what it said.
type tested struct {
	outcomes map[string]string // pass, fail, skip; of top-level tests
	words    map[string]string // what the subtests that failed said last, or the last line with a reason
	skips    map[string]int    // subtests and tests that were skipped, by reason
}

// testEvent is one line of test2json.
type testEvent struct {
	Action, Test, Output string
}

// testRun is a compiled test and how to run it.
type testRun struct {
	dir, program string
	timeout      time.Duration
	only         string   // a pattern of tests; empty: all
	without      []string // tests that are not run, because they would wait for ever
	env          []string
	each         time.Duration // if not 0, each test gets a process of its own, and as long: one that panics or hangs ends no other
}

// apart runs every test in a process of its own.
func (r testRun) apart(ctx context.Context) (*tested, error) {
	cmd := exec.CommandContext(ctx, r.program, "-test.list="+r.only)
	cmd.Dir, cmd.Env = r.dir, append(os.Environ(), r.env...)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list tests: %w", err)
	}
	all := newTested()
	for name := range strings.FieldsSeq(string(out)) {
		if !strings.HasPrefix(name, "Test") || slices.Contains(r.without, name) {
			continue
		}
		one := r
		one.only, one.timeout, one.each = "^"+name+"$", r.each, 0
		tests, err := one.tests(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all.take(tests)
	}
	return all, nil
}

// take adds what another run told.
func (t *tested) take(more *tested) {
	maps.Copy(t.outcomes, more.outcomes)
	maps.Copy(t.words, more.words)
	for why, n := range more.skips {
		t.skips[why] += n
	}
}

func (r testRun) tests(ctx context.Context) (*tested, error) {
	if r.each > 0 {
		return r.apart(ctx)
	}
	arguments := []string{"tool", "test2json", r.program, "-test.v=test2json", "-test.timeout=" + r.timeout.String(), "-test.run=" + r.only}
	if len(r.without) > 0 {
		arguments = append(arguments, "-test.skip=^("+strings.Join(r.without, "|")+")$")
	}
	cmd := exec.CommandContext(ctx, "go", arguments...)
	cmd.Dir, cmd.Env = r.dir, append(os.Environ(), r.env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	tests, readErr := readTests(out)
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(tests.outcomes) > 0 {
		err = nil // Which tests failed is in the events.
	}
	return tests, errors.Join(readErr, err)
}

// reason is a line that a test logged, "    file_test.go:12: what", what testify says was wrong, or a panic.
var reason = regexp.MustCompile(`^ +(?:[a-z0-9_]+\.go:\d+: |\s+Error:\s+)(.+)|^(panic: .+)`)

// chatter is what tests log whatever becomes of them.
var chatter = regexp.MustCompile(`^deleting topic | completed in `)

func newTested() *tested {
	return &tested{outcomes: map[string]string{}, words: map[string]string{}, skips: map[string]int{}}
}

func readTests(out io.Reader) (*tested, error) {
	t := newTested()
	said := map[string]string{}
	blamed := map[string][]string{} // the subtests that failed, by top-level test
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e testEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return t, fmt.Errorf("read test events: %w", err)
		}
		top, subtest, inner := strings.Cut(e.Test, "/")
		switch e.Action {
		case "output":
			if match := reason.FindStringSubmatch(e.Output); match != nil && !chatter.MatchString(match[1]) {
				said[e.Test] = cmp.Or(match[1], match[2])
				t.words[top] = said[e.Test]
			}
		case "run":
			if top != "" && !inner {
				t.outcomes[top] = "unfinished"
			}
		case "pass", "fail", "skip":
			switch {
			case top != "" && !inner:
				t.outcomes[top] = e.Action
				t.words[top] = cmp.Or(strings.Join(blamed[top], "; "), t.words[top])
			case inner && e.Action == "fail":
				blamed[top] = append(blamed[top], fmt.Sprintf("%s: %s", subtest, said[e.Test]))
			}
			if e.Action == "skip" && e.Test != "" {
				t.skips[said[e.Test]]++
			}
		}
	}
	return t, lines.Err()
}

// report tells first how many passed, then of each test that did not.
func (t *tested) report(base result, waits []wait) report {
	counted := map[string]int{}
	var others report
	for _, name := range slices.Sorted(maps.Keys(t.outcomes)) {
		outcome := t.outcomes[name]
		if outcome == "pass" || outcome == "skip" {
			counted[outcome]++
			continue
		}
		one := base.failed(name, fmt.Errorf("%s: %s", outcome, t.words[name]))
		if capability := waitsFor(waits, name, t.words[name]); capability != "" {
			one.outcome, one.why = waiting, "waits for "+capability
		}
		counted[string(one.outcome)]++
		others = append(others, one)
	}
	total := base
	total.step, total.outcome = "tests", passed
	total.why = fmt.Sprintf("%d tests passed, %d skipped, %d failed, %d wait", counted["pass"], counted["skip"], counted[string(failed)],
		counted[string(waiting)])
	results := append(report{total}, others...)
	for _, why := range slices.Sorted(maps.Keys(t.skips)) {
		one := base
		one.step, one.outcome, one.why = fmt.Sprintf("%d tests", t.skips[why]), left, why
		results = append(results, one)
	}
	return results
}
