package plugins

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

const goodManifest = `name: dedup-json
version: 1.2.0
abi: 1
language: c
projection: [value]
limits:
  fuel: 200000
  memory: 1MiB
config:
  type: object
  required: [field]
  additionalProperties: false
  properties:
    field: {type: string}
    depth: {type: integer}
    mode: {enum: [first, last]}
verdicts: [unique]
cases:
  - name: repeats share an id
    config: {field: order}
    records:
      - {value: '{"order":7}', want: pass, id: "7"}
      - {value: null, headers: [{key: h, value: x}], want: pass}
`

func TestManifestIsReadWhole(t *testing.T) {
	m, err := ParseManifest([]byte(goodManifest))
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "dedup-json" || m.Projection != ProjectValue || m.RecordFuel != 200_000 || m.MemoryMax != 1<<20 {
		t.Errorf("manifest %+v", m)
	}
	if !m.Uses(VerdictUnique) || m.Uses(VerdictReplace) || !m.Uses(VerdictPass) {
		t.Error("verdicts")
	}
	if l := m.Limits(); l.RecordFuel != 200_000 || l.SliceFuel != 100_000 || l.MemoryBytesMax != 1<<20 {
		t.Errorf("limits %+v", l)
	}
	r := m.Cases[0].Records
	if *r[0].Value != `{"order":7}` || *r[0].ID != "7" || r[1].Value != nil || r[1].Headers[0].Key != "h" || string(m.Cases[0].Config) != `{"field":"order"}` {
		t.Errorf("case %+v", r)
	}
	if !strings.HasPrefix(string(m.ConfigSchema), `{"additionalProperties":false,"properties":{`) {
		t.Errorf("schema %s", m.ConfigSchema)
	}
}

func TestManifestErrorsNameTheLine(t *testing.T) {
	for _, c := range []struct {
		old, new string
		line     int
		text     string
	}{
		{"abi: 1", "abi: 2", 3, "this program knows 1"},
		{"abi: 1", "abi: x", 3, ""},
		{"name: dedup-json", "name: Dedup JSON", 1, "name"},
		{"language: c", "lanugage: c", 4, "unknown"},
		{"projection: [value]", "projection: [values]", 5, "values"},
		{"fuel: 200000", "fuel: 0", 7, "fuel is 0"},
		{"memory: 1MiB", "memory: 17MiB", 8, "16MiB"},
		{"memory: 1MiB", "memory: 100", 7, "pages"},
		{"type: object", "type: string", 10, "object"},
		{"verdicts: [unique]", "verdicts: [uniq]", 17, "uniq"},
		{"{field: order}", "{fields: order}", 20, "field is required"},
		{`want: pass, id: "7"`, "want: drop", 22, "does not list"},
		{`want: pass, id: "7"`, "want: unique", 22, "none of"},
		{"version: 1.2.0", "version: 1.2.0\nversion: 1.3.0", 3, ""},
		{"version: 1.2.0", "version: [", 2, ""},
	} {
		source := strings.Replace(goodManifest, c.old, c.new, 1)
		_, err := ParseManifest([]byte(source))
		var m *ManifestError
		if !errors.As(err, &m) {
			t.Errorf("%s: %v", c.new, err)
			continue
		}
		if !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %q does not say %q", c.new, err, c.text)
		}
		found := false
		for _, line := range strings.Split(err.Error(), "\n") {
			found = found || strings.HasPrefix(line, fmt.Sprintf("plugin.yaml:%d: ", c.line))
		}
		if !found {
			t.Errorf("%s: line %d is not named: %q", c.new, c.line, err)
		}
	}
}

func TestManifestNeedsItsNames(t *testing.T) {
	for _, source := range []string{"", "x", "abi: 1", strings.Repeat("#", ManifestBytesMax+1), "a: &a [*a]"} {
		if _, err := ParseManifest([]byte(source)); err == nil {
			t.Errorf("%.20q was taken", source)
		}
	}
}

func TestConfigIsHeldAgainstTheSchema(t *testing.T) {
	m, err := ParseManifest([]byte(goodManifest))
	if err != nil {
		t.Fatal(err)
	}
	for config, want := range map[string]string{
		`{"field":"a"}`: "", `{"field":"a","depth":3,"mode":"last"}`: "",
		`{}`: "config.field is required", `{"field":1}`: "config.field is no string", `{"field":"a","depth":1.5}`: "no integer",
		`{"field":"a","mode":"x"}`: "none of the values", `{"field":"a","f":1}`: "config.f is unknown", `[]`: "config is no object",
		`{"field":"a"} {}`: "more than one", `{`: "EOF",
	} {
		err := m.CheckConfig([]byte(config))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", config, err, want)
		}
	}
	if (&Manifest{}).CheckConfig([]byte(`{}`)) == nil {
		t.Error("a configuration was taken where none is")
	}
}

func TestPoliciesAndProjectionsRoundTrip(t *testing.T) {
	for p := PolicyDeadLetter; p <= PolicyStop; p++ {
		if got, err := ParseErrorPolicy(p.String()); err != nil || got != p {
			t.Errorf("%v: %v %v", p, got, err)
		}
	}
	if _, err := ParseErrorPolicy("ignore"); err == nil {
		t.Error("an unknown policy was taken")
	}
	for p := range Projection(8) {
		names := strings.FieldsFunc(p.String(), func(r rune) bool { return r == ',' })
		if got, err := ParseProjection(names); err != nil || got != p {
			t.Errorf("%v: %v %v", p, got, err)
		}
	}
}

func TestDefaultLimitsAreAllowed(t *testing.T) {
	if err := DefaultLimits().Check(); err != nil {
		t.Error(err)
	}
	if err := (Limits{}).Check(); err == nil || strings.Count(err.Error(), "\n") < 8 {
		t.Errorf("every problem is listed: %v", err)
	}
}
