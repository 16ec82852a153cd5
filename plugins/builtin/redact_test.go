package builtin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/plugins/abi"
)

const everyPart = abi.ProjectKey | abi.ProjectValue | abi.ProjectHeaders

func redactor(t testing.TB, config string) *guest {
	t.Helper()
	g := newGuest(t, "redact")
	if code := g.configure(config); code != 0 {
		t.Fatalf("%s: refused with %d", config, code)
	}
	return g
}

// redacted judges a value; what passes is as it was.
func redacted(g *guest, text string) string {
	g.t.Helper()
	switch v := g.judge(everyPart, abi.Record{Key: []byte("k"), Value: []byte(text)})[0]; v.Kind {
	case abi.Replace:
		if string(v.Output.Key) != "k" || v.Output.Headers != nil {
			g.t.Errorf("%s: more than the value changed: %+v", text, v)
		}
		return string(v.Output.Value)
	case abi.Pass:
		return text
	case abi.DeadLetter:
		if v.Code != 2 || !strings.Contains(v.Output.Text, "JSON") {
			g.t.Errorf("%s: %+v", text, v)
		}
		return "dead-letter"
	default:
		return v.Kind.String()
	}
}

func TestEveryOccurrenceOfAFieldIsRemoved(t *testing.T) {
	deep := func(n int, inner string) string { return strings.Repeat("[", n) + inner + strings.Repeat("]", n) }
	for _, c := range []struct{ fields, in, out string }{
		{`"a"`, `{"a":1}`, `{}`},
		{`"a"`, `{"a":1,"b":2}`, `{"b":2}`},
		{`"a"`, `{"b":2,"a":1}`, `{"b":2}`},
		{`"a"`, `{"b":2,"a":1,"c":3}`, `{"b":2,"c":3}`},
		{`"a"`, `{"a":1,"a":2,"b":3,"a":4}`, `{"b":3}`},
		{`"a"`, ` { "b" : 2 , "a" : 1 , "c" : 3 } `, ` { "b" : 2 , "c" : 3 } `},
		{`"a"`, ` { "a" : 1 , "c" : 3 } `, ` {  "c" : 3 } `},
		{`"a","b"`, `{"a":1,"b":2}`, `{}`},
		{`"a","c"`, `{"a":1,"b":2,"c":{"d":[1,{"a":2}]},"e":{"a":1}}`, `{"b":2,"e":{"a":1}}`},
		{`"a"`, `{"\u0061":"s"}`, `{}`},
		{`"a.b"`, `{"a":{"b":1,"c":2},"b":3}`, `{"a":{"c":2},"b":3}`},
		{`"a.b"`, `{"a":{"b":1},"a":{"c":1,"b":2}}`, `{"a":{},"a":{"c":1}}`},
		{`"a.b"`, `{"a":7}`, `{"a":7}`},
		{`"a.b"`, `{"a":[{"b":1},7,[{"b":2,"c":3}]]}`, `{"a":[{},7,[{"c":3}]]}`},
		{`"a"`, `[{"a":1},{"b":2}]`, `[{},{"b":2}]`},
		{`"a.1"`, `{"a":[1,2,3]}`, `{"a":[1,null,3]}`},
		{`"a.1"`, `{"a":[[1,2],{"1":"x"},3]}`, `{"a":[[1,null],null,3]}`},
		{`"a.1","a.0"`, `{"a":["x",{"y":[1]}]}`, `{"a":[null,null]}`},
		{`"a","a.b"`, `{"a":{"b":1}}`, `{}`},
		{`"a.b","a.c"`, `{"a":{"c":1,"b":2}}`, `{"a":{}}`},
		{`"a\\.b"`, `{"a.b":1,"a":{"b":2}}`, `{"a":{"b":2}}`},
		{`"a"`, `7`, `7`}, {`"a"`, `"a"`, `"a"`}, {`"a"`, `[]`, `[]`},
		{`"a"`, ``, "dead-letter"}, {`"a"`, `{"a":1`, "dead-letter"}, {`"a"`, `{"a":1}}`, "dead-letter"}, {`"a"`, `{"a":01}`, "dead-letter"},
		{`"a"`, `{"b":1,"a":1,}`, "dead-letter"}, {`"a"`, `{"a":{"b":1]}`, "dead-letter"}, {`"a"`, `card=4111`, "dead-letter"},
		{`"a"`, deep(63, `{"a":1}`), deep(63, `{}`)}, {`"a"`, deep(64, `{"a":1}`), "dead-letter"},
		{`"a"`, `{"b":` + deep(1000, `{"a":1}`) + `,"a":1}`, `{"b":` + deep(1000, `{"a":1}`) + `}`}, {`"a"`, `{"b":` + deep(1024, "") + `}`, "dead-letter"},
	} {
		g := redactor(t, `{"fields":[`+c.fields+`]}`)
		if got := redacted(g, c.in); got != c.out {
			t.Errorf("%s of %.80s: %.80s, want %.80s", c.fields, c.in, got, c.out)
		}
	}
}

func TestWhatIsBlankKeepsItsPlace(t *testing.T) {
	g := redactor(t, `{"fields":["a"],"method":"blank"}`)
	for in, out := range map[string]string{
		`{"a":"s","b":1}`: `{"a":"","b":1}`, `{"a": 7}`: `{"a": null}`, `{"a":{"b":[1]} ,"a":true}`: `{"a":null ,"a":null}`, `{"a":null}`: `{"a":null}`,
		`{"a":"\u0022"}`: `{"a":""}`,
	} {
		if got := redacted(g, in); got != out {
			t.Errorf("%s: %s, want %s", in, got, out)
		}
	}
	// Seven bytes become null: the output outgrows the input.
	many := strings.TrimSuffix(strings.Repeat(`{"a":1},`, 20_000), ",")
	if got, want := redacted(g, "["+many+"]"), "["+strings.ReplaceAll(many, "1", "null")+"]"; got != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}

func digest(secret, text string) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(text))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func TestAHashIsThatOfTheTextUnderTheSecret(t *testing.T) {
	for _, n := range []int{16, 63, 64} {
		secret := strings.Repeat("s", n)
		g := redactor(t, `{"fields":["a"],"headers":["h"],"key":true,"method":"hash","secret":"`+secret+`"}`)
		for _, text := range []string{"", "x", "4111 1111 1111 1111", strings.Repeat("y", 55), strings.Repeat("y", 56), strings.Repeat("y", 64), strings.Repeat("z", 5000)} {
			value, _ := json.Marshal(map[string]string{"a": text})
			v := g.judge(everyPart, abi.Record{Key: []byte(text), Value: value, Headers: headers("h", text, "k", text)})[0]
			want := digest(secret, text)
			if got := string(v.Output.Key); got != want {
				t.Errorf("key %.20q of %d bytes: %s, want %s", text, len(text), got, want)
			}
			if got := string(v.Output.Value); got != `{"a":"`+want+`"}` {
				t.Errorf("value: %s", got)
			}
			if got := v.Output.Headers; !slices.Equal(got, headers("h", want, "k", text)) {
				t.Errorf("headers: %q", got)
			}
		}
		if got, want := redactor(t, `{"fields":["a"],"method":"hash","secret":"`+secret+`"}`), `{"a":"`+digest(secret, "é\"")+`"}`; redacted(got, `{"a":"\u00e9\""}`) != want {
			t.Error("escapes are not undone before the hash")
		}
	}
}

// headers is a blob of names and values; a value of "null" is null.
func headers(pairs ...string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(pairs)/2))
	for i, s := range pairs {
		if i%2 == 1 && s == "null" {
			b = binary.LittleEndian.AppendUint32(b, 0xFFFFFFFF)
			continue
		}
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return b
}

func TestHeadersAndKeysAreRedactedWithoutJSON(t *testing.T) {
	given := headers("a", "1", "token", "t", "token", "null", "b", "2")
	for method, want := range map[string][]byte{"remove": headers("a", "1", "b", "2"), "blank": headers("a", "1", "token", "", "token", "null", "b", "2")} {
		g := redactor(t, `{"headers":["token"],"key":true,"method":"`+method+`"}`)
		v := g.judge(everyPart, abi.Record{Key: []byte("k"), Value: []byte("no JSON"), Headers: given})[0]
		if v.Kind != abi.Replace || string(v.Output.Value) != "no JSON" || !slices.Equal(v.Output.Headers, want) || len(v.Output.Key) != 0 || (v.Output.Key == nil) != (method == "remove") {
			t.Errorf("%s: %+v", method, v)
		}
		if v := g.judge(everyPart, abi.Record{Headers: headers("Token", "t")})[0]; v.Kind != abi.Pass {
			t.Errorf("%s: nothing to redact: %+v", method, v)
		}
	}
}

func TestRedactRefusesAConfigurationThatHidesNothing(t *testing.T) {
	long := strings.Repeat(`"a",`, 32) + `"a"`
	for _, config := range []string{
		`{}`, `{"key":false}`, `{"fields":[]}`, `{"fields":"a"}`, `{"fields":[7]}`, `{"fields":["a..b"]}`, `{"fields":[` + long + `]}`, `{"headers":[` + long + `]}`,
		`{"headers":[["a"]]}`, `{"key":null}`, `{"key":"k"}`, `{"key":true,"method":"mask"}`, `{"key":true,"method":"hash"}`, `{"key":true,"method":"hash","secret":"short"}`,
		`{"key":true,"method":"hash","secret":"` + strings.Repeat("s", 65) + `"}`, `{"key":true,"secret":"a secret that is not asked for"}`, `{"key":true,"malformed":"pass"}`,
	} {
		if newGuest(t, "redact").configure(config) == 0 {
			t.Errorf("%.60s is taken", config)
		}
	}
}

// The scanner against encoding/json, over texts that are mostly JSON: what is left holds the field nowhere and is JSON,
// and nothing else is gone.
func TestNothingOfAFieldIsLeftAndNothingElseIsLost(t *testing.T) {
	g := redactor(t, `{"fields":["a.b","ab"]}`)
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 11))
		for range 60 {
			text := randomJSON(rng, 0)
			for range rng.IntN(2) * rng.IntN(3) {
				text = damage(rng, text)
			}
			got := redacted(g, text)
			if !json.Valid([]byte(text)) {
				if got != "dead-letter" {
					t.Fatalf("seed %d: %s became %s", seed, text, got)
				}
				continue
			}
			if want, have := pruned(text, true), pruned(got, false); want != have {
				t.Fatalf("seed %d: %s became %s: %s, want %s", seed, text, got, have, want)
			}
		}
	}
}

// pruned writes a value's tokens with every member kept, in order; without those that a.b and ab name, if it prunes.
func pruned(text string, prune bool) string {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return prunedValue(d, prune, 0)
}

// prunedValue reads one value; names says how many names of a.b led to it.
func prunedValue(d *json.Decoder, prune bool, names int) string {
	token, err := d.Token()
	if err != nil {
		return "broken: " + err.Error()
	}
	var b strings.Builder
	switch token {
	case json.Delim('{'):
		for d.More() {
			name, _ := d.Token()
			next := -1
			if names == 0 && name == "a" {
				next = 1
			}
			hidden := names == 0 && name == "ab" || names == 1 && name == "b"
			if value := prunedValue(d, prune, next); !prune || !hidden {
				fmt.Fprintf(&b, "%q:%s,", name, value)
			}
		}
		_, _ = d.Token()
		return "{" + b.String() + "}"
	case json.Delim('['):
		for d.More() {
			b.WriteString(prunedValue(d, prune, names) + ",")
		}
		_, _ = d.Token()
		return "[" + b.String() + "]"
	}
	return fmt.Sprintf("%T %v", token, token)
}

func TestTheLastHeaderOfANameIdentifiesARecord(t *testing.T) {
	for missing, kind := range map[string]abi.Kind{"": abi.Pass, `,"missing":"pass"`: abi.Pass, `,"missing":"drop"`: abi.Drop, `,"missing":"dead-letter"`: abi.DeadLetter} {
		g := newGuest(t, "dedup-header")
		if code := g.configure(`{"header":"\u0069d"` + missing + `}`); code != 0 {
			t.Fatalf("%s: %d", missing, code)
		}
		got := g.judge(abi.ProjectHeaders,
			abi.Record{Headers: headers("id", "x")}, abi.Record{Headers: headers("id", "x", "id", "y", "other", "z")}, abi.Record{Headers: headers("id", "null", "id", strings.Repeat("l", 1024))},
			abi.Record{}, abi.Record{Headers: headers()}, abi.Record{Headers: headers("ID", "x")}, abi.Record{Headers: headers("id", "")}, abi.Record{Headers: headers("id", "x", "id", "null")})
		for i, want := range []string{"x", "y", strings.Repeat("l", 1024)} {
			if v := got[i]; v.Kind != abi.Pass || v.Unique != abi.UniqueByID || string(v.ID) != want {
				t.Errorf("record %d: %+v, want %.10s", i, v, want)
			}
		}
		for i, v := range got[3:] {
			if v.Kind != kind || v.Unique != abi.NotUnique || v.Code != 1 {
				t.Errorf("%s: record %d: %+v", missing, i+3, v)
			}
		}
	}
	for _, config := range []string{`{}`, `{"header":""}`, `{"header":7}`, `{"header":"` + strings.Repeat("h", 513) + `"}`, `{"header":"h","missing":"keep"}`, `{"header":"h","missing":1}`} {
		if newGuest(t, "dedup-header").configure(config) == 0 {
			t.Errorf("%.60s is taken", config)
		}
	}
}
