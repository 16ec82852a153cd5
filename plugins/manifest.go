package plugins

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// ManifestBytesMax bounds plugin.yaml.
const ManifestBytesMax = 256 << 10

// Names of verdicts in a manifest.
const (
	VerdictPass       = "pass"
	VerdictDrop       = "drop"
	VerdictReplace    = "replace"
	VerdictDeadLetter = "dead-letter"
	VerdictUnique     = "unique"
)

// verdictNames is what `verdicts` of a manifest may list.
var verdictNames = [...]string{VerdictPass, VerdictDrop, VerdictReplace, VerdictDeadLetter, VerdictUnique}

// Manifest is plugin.yaml.
type Manifest struct {
	Name       string
	Version    string
	ABI        uint32
	Language   string // go, rust, c, assemblyscript, zig or another; for people
	Projection Projection
	Verdicts   []string // what the plugin may answer; pass is always allowed
	RecordFuel uint64   // asked for; 0 leaves the default
	MemoryMax  uint32   // bytes asked for; 0 leaves the default
	// ConfigSchema is the JSON Schema of the configuration, as JSON with sorted keys; nil where the plugin takes none.
	ConfigSchema json.RawMessage
	Cases        []Case
}

// Case is one example in a manifest: records in, what the plugin answers to each.
type Case struct {
	Name    string
	Config  json.RawMessage // nil: none
	Records []CaseRecord
}

// CaseRecord is a record of a case with what is expected of it. A nil pointer is null, or nothing expected.
type CaseRecord struct {
	Timestamp int64             `yaml:"timestamp"`
	Key       *string           `yaml:"key"`
	Value     *string           `yaml:"value"`
	Headers   []CaseHeader      `yaml:"headers"`
	Want      string            `yaml:"want"`   // a verdict's name
	ID        *string           `yaml:"id"`     // the id that `unique` gives; by key means the key
	Output    map[string]string `yaml:"output"` // key, value of a replaced record; text of a letter
}

// CaseHeader is a header of a case's record.
type CaseHeader struct {
	Key   string  `yaml:"key"`
	Value *string `yaml:"value"`
}

// ManifestError is something wrong with a manifest, at a line of it counted from 1 (0 where no line is to blame).
type ManifestError struct {
	Line int
	Text string
}

func (e *ManifestError) Error() string {
	if e.Line == 0 {
		return "plugin.yaml: " + e.Text
	}
	return fmt.Sprintf("plugin.yaml:%d: %s", e.Line, e.Text)
}

// Uses reports whether the manifest lists the verdict; pass needs no listing.
func (m *Manifest) Uses(verdict string) bool {
	return verdict == VerdictPass || slices.Contains(m.Verdicts, verdict)
}

// Limits are the defaults with what the manifest asks for.
func (m *Manifest) Limits() Limits {
	l := DefaultLimits()
	if m.RecordFuel != 0 {
		l.RecordFuel = m.RecordFuel
	}
	if m.MemoryMax != 0 {
		l.MemoryBytesMax = m.MemoryMax
	}
	return l
}

// manifestFile is plugin.yaml as written.
type manifestFile struct {
	Name       string         `yaml:"name"`
	Version    string         `yaml:"version"`
	ABI        uint32         `yaml:"abi"`
	Language   string         `yaml:"language"`
	Projection []string       `yaml:"projection"`
	Limits     limitsFile     `yaml:"limits"`
	Config     map[string]any `yaml:"config"`
	Verdicts   []string       `yaml:"verdicts"`
	Cases      []caseFile     `yaml:"cases"`
}

type limitsFile struct {
	Fuel   *uint64 `yaml:"fuel"`
	Memory *string `yaml:"memory"`
}

type caseFile struct {
	Name    string         `yaml:"name"`
	Config  map[string]any `yaml:"config"`
	Records []CaseRecord   `yaml:"records"`
}

// ParseManifest reads plugin.yaml strictly: an unknown key, a missing one and a value that makes no sense are each an
// error that wraps *ManifestError and names the line; all that are found are joined.
func ParseManifest(source []byte) (*Manifest, error) {
	if len(source) > ManifestBytesMax {
		return nil, &ManifestError{Text: fmt.Sprintf("%d bytes; %d are allowed", len(source), ManifestBytesMax)}
	}
	file, err := parser.ParseBytes(source, 0)
	if err != nil {
		return nil, fromYAML(err)
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, &ManifestError{Text: "one document is expected"}
	}
	var raw manifestFile
	if err := yaml.UnmarshalWithOptions(source, &raw, yaml.Strict()); err != nil {
		return nil, fromYAML(err)
	}
	c := manifestCheck{file: file}
	m := c.manifest(&raw)
	if len(c.problems) > 0 {
		return nil, errors.Join(c.problems...)
	}
	return m, nil
}

func fromYAML(err error) error {
	var positioned yaml.Error
	if errors.As(err, &positioned) && positioned.GetToken() != nil {
		return &ManifestError{Line: positioned.GetToken().Position.Line, Text: positioned.GetMessage()}
	}
	return &ManifestError{Text: err.Error()}
}

// manifestCheck gathers what is wrong with a manifest that parses.
type manifestCheck struct {
	file     *ast.File
	problems []error
}

// add notes a problem at the deepest part of path ($.limits.fuel) that the file has.
func (c *manifestCheck) add(path, format string, args ...any) {
	e := &ManifestError{Text: fmt.Sprintf(format, args...)}
	for path != "" {
		if p, err := yaml.PathString(path); err == nil {
			if node, err := p.FilterFile(c.file); err == nil && node != nil {
				e.Line = node.GetToken().Position.Line
				break
			}
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	c.problems = append(c.problems, e)
}

// The names of plugins and the versions of them end up in file names, metrics and command lines.
var (
	namePattern    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	versionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+-]{0,62}$`)
)

func (c *manifestCheck) manifest(raw *manifestFile) *Manifest {
	m := &Manifest{Name: raw.Name, Version: raw.Version, ABI: raw.ABI, Language: raw.Language, Verdicts: raw.Verdicts}
	if !namePattern.MatchString(m.Name) {
		c.add("$.name", "name %q; lower-case letters, digits and hyphens are allowed, at most 63", m.Name)
	}
	if !versionPattern.MatchString(m.Version) {
		c.add("$.version", "version %q; letters, digits, dot, plus and hyphen are allowed, at most 63", m.Version)
	}
	if m.ABI != 1 {
		c.add("$.abi", "abi %d; this program knows 1", m.ABI)
	}
	var err error
	if m.Projection, err = ParseProjection(raw.Projection); err != nil {
		c.add("$.projection", "projection: %s", err)
	}
	for i, v := range m.Verdicts {
		if !slices.Contains(verdictNames[:], v) {
			c.add(fmt.Sprintf("$.verdicts[%d]", i), "verdict %q is none of %s", v, strings.Join(verdictNames[:], ", "))
		}
	}
	c.limits(&raw.Limits, m)
	if raw.Config != nil {
		if m.ConfigSchema, err = json.Marshal(raw.Config); err != nil {
			c.add("$.config", "config: %s", err)
		} else if err := checkSchema(m.ConfigSchema); err != nil {
			c.add("$.config", "config: %s", err)
		}
	}
	for i := range raw.Cases {
		c.testCase(fmt.Sprintf("$.cases[%d]", i), &raw.Cases[i], m)
	}
	return m
}

func (c *manifestCheck) limits(raw *limitsFile, m *Manifest) {
	if raw.Fuel != nil {
		m.RecordFuel = *raw.Fuel
		if m.RecordFuel == 0 {
			c.add("$.limits.fuel", "fuel is 0")
		}
	}
	if raw.Memory != nil {
		bytes, err := parseBytes(*raw.Memory)
		if err != nil {
			c.add("$.limits.memory", "memory: %s", err)
			return
		}
		m.MemoryMax = bytes
	}
	if err := m.Limits().Check(); err != nil {
		c.add("$.limits", "limits: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// parseBytes reads 65536, 64KiB or 16MiB.
func parseBytes(s string) (uint32, error) {
	number, shift := s, 0
	if cut, ok := strings.CutSuffix(s, "KiB"); ok {
		number, shift = cut, 10
	} else if cut, ok := strings.CutSuffix(s, "MiB"); ok {
		number, shift = cut, 20
	}
	n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
	if err != nil || n == 0 || n<<shift > memoryBytesMax {
		return 0, fmt.Errorf("%q is no size up to 16MiB", s)
	}
	return uint32(n << shift), nil
}

func (c *manifestCheck) testCase(path string, raw *caseFile, m *Manifest) {
	result := Case{Name: raw.Name, Records: raw.Records}
	if raw.Name == "" {
		c.add(path, "a case has no name")
	}
	if raw.Config != nil {
		config, err := json.Marshal(raw.Config)
		if err == nil {
			err = m.CheckConfig(config)
		}
		if err != nil {
			c.add(path+".config", "config: %s", err)
		}
		result.Config = config
	}
	for i, r := range raw.Records {
		at := fmt.Sprintf("%s.records[%d]", path, i)
		switch {
		case r.Want == VerdictUnique || !slices.Contains(verdictNames[:], r.Want):
			c.add(at+".want", "want %q is none of pass, drop, replace, dead-letter", r.Want)
		case !m.Uses(r.Want):
			c.add(at+".want", "want %s, which verdicts does not list", r.Want)
		case r.ID != nil && !m.Uses(VerdictUnique):
			c.add(at+".id", "an id is expected, but verdicts does not list unique")
		}
	}
	m.Cases = append(m.Cases, result)
}
