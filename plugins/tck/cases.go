package tck

import (
	"context"
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// Load brings a plugin up under a configuration; nil is none. release frees it.
type Load func(ctx context.Context, config []byte) (g Guest, release func(), err error)

// CaseResult is what a plugin made of one record of a case.
type CaseResult struct {
	Case     string
	Record   int
	Want     string // as the manifest has it
	Got      string // in the same words
	Passed   bool
	Fuel     uint64 // spent on the record judged alone
	Verdict  abi.Verdict
	Failure  *plugins.Fault // where the plugin failed at the record
	RecordIn abi.Record
}

// The records of a case lie at these offsets and, but for what they say, at this time.
const (
	caseOffset    = 1_000
	caseTimestamp = 1_700_000_000_000
)

// CaseRecords are the records of a case as a guest is given them.
func CaseRecords(c *plugins.Case) []abi.Record {
	records := make([]abi.Record, len(c.Records))
	for i, r := range c.Records {
		record := abi.Record{Offset: caseOffset + int64(i), Timestamp: r.Timestamp, Key: bytesOf(r.Key), Value: bytesOf(r.Value)}
		if record.Timestamp == 0 {
			record.Timestamp = caseTimestamp
		}
		if len(r.Headers) > 0 {
			headers := make([]abi.Header, len(r.Headers))
			for n, h := range r.Headers {
				headers[n] = abi.Header{Key: []byte(h.Key), Value: bytesOf(h.Value)}
			}
			record.Headers = abi.AppendHeaders(nil, headers)
		}
		records[i] = record
	}
	return records
}

func bytesOf(s *string) []byte {
	if s == nil {
		return nil
	}
	return []byte(*s)
}

// RunCases judges the records of every case of the manifest, each alone under the header of the whole case. An error
// is a configuration that is refused, or the host's trouble; a record that is answered otherwise is in the results.
func RunCases(ctx context.Context, m *plugins.Manifest, load Load) ([]CaseResult, error) {
	var results []CaseResult
	for i := range m.Cases {
		c := &m.Cases[i]
		g, release, err := load(ctx, c.Config)
		if err != nil {
			return results, fmt.Errorf("case %q: %w", c.Name, err)
		}
		of, err := runCase(ctx, m, c, g)
		release()
		results = append(results, of...)
		if err != nil {
			return results, fmt.Errorf("case %q: %w", c.Name, err)
		}
	}
	return results, nil
}

func runCase(ctx context.Context, m *plugins.Manifest, c *plugins.Case, g Guest) ([]CaseResult, error) {
	records := CaseRecords(c)
	results := make([]CaseResult, len(records))
	for i := range records {
		f := part(g, records, i, i+1)
		answer := new(abi.Answer) // its slices are the result's
		j, err := judge(ctx, g, f, answer)
		if err != nil {
			return results[:i], err
		}
		r := CaseResult{Case: c.Name, Record: i, Want: wanted(&c.Records[i]), Fuel: j.fuel, Failure: j.fault, RecordIn: records[i]}
		if j.fault != nil {
			r.Got = "failed: " + j.fault.Reason.String() + ": " + j.fault.Text
		} else {
			r.Verdict = answer.Verdicts[0]
			r.Got = got(r.Verdict, &c.Records[i])
			if undeclared := undeclared(m, r.Verdict); undeclared != "" {
				r.Got += ", but verdicts does not list " + undeclared
			}
		}
		r.Passed = r.Got == r.Want
		results[i] = r
	}
	return results, nil
}

// part is records [start, end) under the header of them all, as the host cuts frames.
func part(g Guest, records []abi.Record, start, end int) *abi.Frame {
	return &abi.Frame{
		BaseOffset: records[0].Offset, BaseTimestamp: records[0].Timestamp,
		Projection: g.Projection(), Records: records[start:end],
	}
}

func wanted(r *plugins.CaseRecord) string {
	s := r.Want
	if r.ID != nil {
		s += fmt.Sprintf(" unique by %q", *r.ID)
	}
	for _, name := range [...]string{"key", "value", "text"} {
		if text, ok := r.Output[name]; ok {
			s += fmt.Sprintf(" %s %q", name, text)
		}
	}
	return s
}

// got says of a verdict what the case asks about.
func got(v abi.Verdict, r *plugins.CaseRecord) string {
	s := v.Kind.String()
	if v.Unique != abi.NotUnique {
		s += fmt.Sprintf(" unique by %q", v.ID)
	}
	if v.Output == nil {
		return s
	}
	for _, field := range [...]struct{ name, text string }{
		{"key", string(v.Output.Key)}, {"value", string(v.Output.Value)}, {"text", v.Output.Text},
	} {
		if _, asked := r.Output[field.name]; asked {
			s += fmt.Sprintf(" %s %q", field.name, field.text)
		}
	}
	return s
}

// undeclared lists what a verdict uses without the manifest saying so.
func undeclared(m *plugins.Manifest, v abi.Verdict) string {
	var names []string
	if kind := v.Kind.String(); !m.Uses(kind) {
		names = append(names, kind)
	}
	if v.Unique != abi.NotUnique && !m.Uses(plugins.VerdictUnique) {
		names = append(names, plugins.VerdictUnique)
	}
	return strings.Join(names, " and ")
}
