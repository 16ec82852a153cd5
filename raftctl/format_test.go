package raftctl

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/sdk"
)

func mustParse(t testing.TB, text string) format {
	t.Helper()
	f, err := parseFormat(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFormatsPrintEveryPartOfARecord(t *testing.T) {
	r := &sdk.Record{
		Topic: "orders", Partition: 3, Offset: 42, Timestamp: time.UnixMilli(1_700_000_000_123), Key: []byte("k"), Value: []byte("värde"),
		Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "b"}},
	}
	for text, want := range map[string]string{
		"":                         "",
		"%v":                       "värde",
		`%t-%p@%o %T\n`:            "orders-3@42 1700000000123\n",
		`%k\t%v\0%%\\`:             "k\tvärde\x00%\\",
		"%K/%V %h":                 "1/6 a=1,b=",
		"%%k":                      "%k",
		"%k%k":                     "kk",
		"a literal, with nothing ": "a literal, with nothing ",
	} {
		if got := string(mustParse(t, text).append(nil, r)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestFormatsThatMakeNoSenseAreUsageErrors(t *testing.T) {
	for _, text := range []string{"%", "%q", `\`, `\x`, "%v%"} {
		if _, err := parseFormat(text); exitCode(err) != exitUsage {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"%k%v", "%o", `%k\t%T`} {
		if err := mustParse(t, text).checkReadable(); exitCode(err) != exitUsage {
			t.Errorf("%q can be read: %v", text, err)
		}
	}
}

func TestALineThatIsNotInTheFormatIsTold(t *testing.T) {
	for _, c := range []struct{ format, line, want string }{
		{`%k=%v\n`, "no equals", `no "=" after %k`},
		{`id:%v;\n`, "v;", `expected "id:"`},
		{`%v;\n`, "a;b", `"b" is left over`},
		{`%v;\n`, "a", `no ";" after %v`},
	} {
		if _, err := mustParse(t, c.format).read([]byte(c.line)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s on %q: %v, want %q", c.format, c.line, err, c.want)
		}
	}
}

// walkSteps is how many random records each property is tried on; the seed is fixed, so a failure repeats.
const walkSteps = 2000

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

// What a readable format prints of a key without the separator in it, the same format reads back.
func TestReadableFormatsRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	text := func(letters string) []byte {
		b := make([]byte, rng.IntN(8))
		for i := range b {
			b[i] = letters[rng.IntN(len(letters))]
		}
		return b
	}
	for range walkSteps {
		pattern := pick(rng, "", "> ", "%%") + "%k" + pick(rng, `\t`, "=", "::", " | ", `\\`) + `%v\n`
		f := mustParse(t, pattern)
		if err := f.checkReadable(); err != nil {
			t.Fatal(err)
		}
		in := &sdk.Record{Key: text("abc"), Value: text("abc=: |\\\t\x00\xff")}
		line := bytes.TrimSuffix(f.append(nil, in), []byte("\n"))
		out, err := f.read(line)
		if err != nil || !bytes.Equal(in.Key, out.Key) || !bytes.Equal(in.Value, out.Value) {
			t.Fatalf("%s: %q: %+v, %v; want %q %q", pattern, line, out, err, in.Key, in.Value)
		}
	}
}

// randomPart is a key, a value or a header's part: null, empty, any bytes, text, and what JSON could mistake.
func randomPart(rng *rand.Rand) []byte {
	random := make([]byte, 1+rng.IntN(6))
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	return pick(rng, nil, []byte{}, random, []byte(string([]rune{rune(rng.IntN(0xd800)), 'x'})), []byte(`{"id":1}`), []byte(`{"base64":"QQ=="}`),
		[]byte("null"), []byte(`"`), []byte("<&>\u2028"), []byte("\xed\xa0\x80"), []byte("\ufffd"))
}

// Whatever bytes a record has, null apart from empty, what consume prints is what produce reads.
func TestRecordsRoundTripAsJSON(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 0))
	c := &cli{form: formNDJSON}
	for range walkSteps {
		in := &sdk.Record{Topic: "t", Partition: 2, Offset: 9, Timestamp: time.UnixMilli(rng.Int64N(1 << 45)), Key: randomPart(rng), Value: randomPart(rng)}
		for range rng.IntN(4) {
			in.Headers = append(in.Headers, kgo.RecordHeader{Key: string(randomPart(rng)), Value: randomPart(rng)})
		}
		var line bytes.Buffer
		if err := c.item(&line, toJSON(in)); err != nil {
			t.Fatal(err)
		}
		if bytes.Count(line.Bytes(), []byte("\n")) != 1 || !json.Valid(line.Bytes()) {
			t.Fatalf("not a line of JSON: %q", line.Bytes())
		}
		out, err := fromJSON(line.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if !recordSame(in, out) {
			t.Fatalf("%s: %+v, want %+v", line.Bytes(), out, in)
		}
	}
}

func recordSame(a, b *sdk.Record) bool {
	same := bytesSame(a.Key, b.Key) && bytesSame(a.Value, b.Value) && a.Timestamp.Equal(b.Timestamp) && a.Partition == b.Partition && len(a.Headers) == len(b.Headers)
	for i := 0; same && i < len(a.Headers); i++ {
		same = a.Headers[i].Key == b.Headers[i].Key && bytesSame(a.Headers[i].Value, b.Headers[i].Value)
	}
	return same
}

func bytesSame(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func TestRecordsAreReadFromWhatOthersWrite(t *testing.T) {
	for line, want := range map[string]string{
		`{"value":{"a": 1}}`:                            `nil|{"a": 1}|`,
		`{"key":7,"value":[1,2],"more":true}`:           `7|[1,2]|`,
		`{"key":{"base64":"/w=="},"value":true}`:        "\xff|true|",
		`{"value":{"base64":7}}`:                        `nil|{"base64":7}|`,
		`{"headers":{"b":"1","a":null}}`:                `nil|nil|b=1,a=nil`,
		`{"headers":[{"key":"b","value":"1"}]}`:         `nil|nil|b=1`,
		`{"headers":{"o":{"x":1},"b":{"base64":"QQ"}}}`: "",
		`{"value":{"base64":"!"}}`:                      "",
		`{"valu":"x"}`:                                  "",
		`{}`:                                            "",
		`{"key":null}`:                                  `nil|nil|`,
		`[]`:                                            "",
		`{"value":`:                                     "",
		`{"headers":7}`:                                 "",
	} {
		r, err := fromJSON([]byte(line))
		if want == "" {
			if err == nil {
				t.Errorf("%s was taken", line)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		text := func(b []byte) string {
			if b == nil {
				return "nil"
			}
			return string(b)
		}
		var headers []string
		for _, h := range r.Headers {
			headers = append(headers, h.Key+"="+text(h.Value))
		}
		if got := text(r.Key) + "|" + text(r.Value) + "|" + strings.Join(headers, ","); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestMarkersOfTransactionsAreNotProduced(t *testing.T) {
	if r, err := fromJSON([]byte(`{"value":"x","control":true}`)); r != nil || err != nil {
		t.Error(r, err)
	}
}
