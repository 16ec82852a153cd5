package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSuiteReportNamesWhatDidNotPass reads a test run in which one test passed, one failed, one was skipped in a subtest,
// and one never ended.
func TestSuiteReportNamesWhatDidNotPass(t *testing.T) {
	const transcript = `{"Action":"start"}
{"Action":"run","Test":"TestGood"}
{"Action":"output","Test":"TestGood","Output":"    a_test.go:7: deleting topic abc\n"}
{"Action":"pass","Test":"TestGood"}
{"Action":"run","Test":"TestBad"}
{"Action":"run","Test":"TestBad/inner"}
{"Action":"output","Test":"TestBad/inner","Output":"    a_test.go:9: offset 3, want 4\n"}
{"Action":"fail","Test":"TestBad/inner"}
{"Action":"fail","Test":"TestBad"}
{"Action":"run","Test":"TestPart"}
{"Action":"run","Test":"TestPart/848"}
{"Action":"output","Test":"TestPart/848","Output":"    a_test.go:11: no key 68\n"}
{"Action":"output","Test":"TestPart/848","Output":"    a_test.go:12: TestPart/848 completed in 3ms\n"}
{"Action":"skip","Test":"TestPart/848"}
{"Action":"pass","Test":"TestPart"}
{"Action":"run","Test":"TestStuck"}
{"Action":"fail"}
`
	tests, err := readTests(strings.NewReader(transcript))
	if err != nil {
		t.Fatal(err)
	}
	tests.outcomes["TestTxnEtl"] = "not run"
	got := map[string]string{}
	for _, one := range tests.report(result{client: suiteName}, suiteWaits) {
		got[one.step] = string(one.outcome) + ": " + one.why
	}
	want := map[string]string{
		"tests":      "passed: 2 tests passed, 0 skipped, 2 failed, 1 wait",
		"TestBad":    "failed: fail: inner: offset 3, want 4",
		"TestStuck":  "failed: unfinished: ",
		"TestTxnEtl": "waiting: waits for transactions",
		"1 tests":    "skipped: no key 68",
	}
	for step, outcome := range want {
		if got[step] != outcome {
			t.Errorf("%s: got %q, want %q", step, got[step], outcome)
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d rows, want %d: %v", len(got), len(want), got)
	}
}

// TestDocumentTellsWhyAStepDidNotPass also holds the matrix to one row a client.
func TestDocumentTellsWhyAStepDidNotPass(t *testing.T) {
	r := report{
		{client: "kcat", version: "1", from: "Debian", build: "abc", step: "create", outcome: left, why: "no command"},
		{client: "kcat", version: "1", from: "Debian", build: "abc", step: "produce", outcome: passed, why: "none"},
		{client: "kcat", version: "1", from: "Debian", build: "abc", step: "group", outcome: failed, why: "stuck\nat 3"},
		{client: "kcat", version: "1", from: "Debian", over: "TLS", build: "abc", step: "group", outcome: failed, why: "stuck"},
		{client: suiteName, version: "2", build: "abc", from: "Go", step: "tests", outcome: passed, why: "5 tests passed"},
	}
	name := filepath.Join(t.TempDir(), "report.md")
	if err := r.write(name); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"of one build of the broker, commit abc", "## Over TLS", "- kcat 1, group over TLS: failed: stuck\n",
		"| kcat 1 | Debian | skipped | passed | failed |", "- kcat 1, create: skipped: no command\n",
		"- kcat 1, group: failed: stuck at 3\n", "| kgo-suite | 2 | Go | 1 | 0 | 0 | 0 | abc | 5 tests passed |",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the document lacks %q:\n%s", want, text)
		}
	}
}

// TestMissingToolIsASkipWithAReason keeps a machine without a registry from looking like a broken broker.
func TestMissingToolIsASkipWithAReason(t *testing.T) {
	err := shell(t.Context(), t.TempDir(), "no-such-tool", "install")
	var skip skipped
	if !errors.As(err, &skip) || !strings.Contains(err.Error(), "no-such-tool install") {
		t.Errorf("got %v, want a skip that names the command", err)
	}
}

func TestUnknownClientIsRefused(t *testing.T) {
	err := options{only: []string{"kcat", "kcats"}}.check()
	if err == nil || !strings.Contains(err.Error(), `"kcats"`) {
		t.Errorf("got %v, want an error that names kcats", err)
	}
}

// TestRunsOfPartsMakeOneReport keeps what an earlier run found of the clients that a later one left out.
func TestRunsOfPartsMakeOneReport(t *testing.T) {
	name := filepath.Join(t.TempDir(), "results.json")
	first := report{{client: "kcat", version: "1", step: "seek", outcome: failed, why: "stuck"}, {client: "java", version: "4", step: "seek", outcome: passed}}
	if _, err := keep(name, first); err != nil {
		t.Fatal(err)
	}
	all, err := keep(name, report{{client: "kcat", version: "1", step: "seek", outcome: passed}})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all.count(passed) != 2 || all[0].client != "java" {
		t.Errorf("all results: %+v", all)
	}
}
