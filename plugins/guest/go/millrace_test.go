package millrace

import (
	"bytes"
	"fmt"
	"testing"
	"unsafe"
)

// judging registers a plugin for one test.
func judging(t *testing.T, judge func(Record) Verdict) {
	t.Helper()
	Judge(judge)
	t.Cleanup(func() { guest = state{} })
}

func TestARecordShowsWhatTheFrameHolds(t *testing.T) {
	var seen []string
	judging(t, func(r Record) Verdict {
		s := fmt.Sprintf("%d@%d %q=%q", r.Offset(), r.Timestamp(), r.Key(), r.Value())
		if r.Key() == nil {
			s += " null key"
		}
		for name, value := range r.Headers() {
			s += fmt.Sprintf(" %s:%q:%v", name, value, value == nil)
		}
		if v, ok := r.Header("a"); ok {
			s += fmt.Sprintf(" last a=%q", v)
		}
		seen = append(seen, s)
		return Pass
	})
	out := Try(
		Input{Key: []byte("k"), Value: []byte("v"), Offset: 100, Timestamp: 5000},
		Input{Value: []byte{}, Offset: 90, Timestamp: 4000, Headers: []Header{{"a", []byte("1")}, {"b", nil}, {"a", []byte("22")}}},
	)
	want := []string{`100@5000 "k"="v"`, `90@4000 ""="" null key a:"1":false b:"":true a:"22":false last a="22"`}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("saw  %q\nwant %q", seen, want)
	}
	if len(out) != 2 || out[0].Verdict != "pass" || out[0].ID != nil {
		t.Errorf("%+v", out)
	}
}

func TestEveryVerdictComesOut(t *testing.T) {
	long := bytes.Repeat([]byte("x"), outputsUsual+1)
	answers := []func(Record) Verdict{
		func(Record) Verdict { return Drop },
		func(Record) Verdict { return DeadLetter(42, "no such order") },
		func(Record) Verdict { return Pass.UniqueByKey() },
		func(r Record) Verdict { return Pass.Unique(r.Value()[1:3]) },
		func(Record) Verdict { return Replace(Keep, []byte("new")).Unique([]byte("made up")) },
		func(Record) Verdict { return Replace(nil, long) },
		func(Record) Verdict {
			return ReplaceAll([]byte{}, Keep, []Header{{"h", []byte("1")}, {"n", nil}})
		},
	}
	judging(t, func(r Record) Verdict { return answers[r.Offset()](r) })
	in := make([]Input, len(answers))
	for i := range in {
		in[i] = Input{Offset: int64(i), Key: []byte("key"), Value: []byte("value"), Headers: []Header{{"old", []byte("0")}}}
	}
	out := Try(in...)
	describe := func(o Outcome) string {
		return fmt.Sprintf("%s id=%q %q=%.5q/%d %q %d %s", o.Verdict, o.ID, o.Key, o.Value, len(o.Value), o.Headers, o.Code, o.Text)
	}
	for i, want := range []string{
		`drop id="" "key"="value"/5 [{"old" "0"}] 0 `,
		`dead-letter id="" "key"="value"/5 [{"old" "0"}] 42 no such order`,
		`pass id="key" "key"="value"/5 [{"old" "0"}] 0 `,
		`pass id="al" "key"="value"/5 [{"old" "0"}] 0 `,
		`replace id="made up" "key"="new"/3 [{"old" "0"}] 0 `,
		`replace id="" ""="xxxxx"/131073 [{"old" "0"}] 0 `,
		`replace id="" ""="value"/5 [{"h" "1"} {"n" ""}] 0 `,
	} {
		if got := describe(out[i]); got != want {
			t.Errorf("record %d: %s\n     want: %s", i, got, want)
		}
	}
	if out[5].Key != nil || out[6].Key == nil || out[6].Headers[1].Value != nil {
		t.Error("null and empty are confused")
	}
}

func TestTheCursorNamesTheRecordAtWork(t *testing.T) {
	judging(t, func(r Record) Verdict {
		if at := load(12); int64(at) != r.Offset() {
			t.Errorf("cursor %d at record %d", at, r.Offset())
		}
		return Pass
	})
	Try(Input{Offset: 0}, Input{Offset: 1}, Input{Offset: 2})
}

func TestAFrameBeyondTheUsualRoomIsJudged(t *testing.T) {
	judging(t, func(r Record) Verdict { return Pass.Unique(r.Value()[:1]) })
	in := make([]Input, recordsUsual+5)
	for i := range in {
		in[i] = Input{Offset: int64(i), Value: bytes.Repeat([]byte{byte(i)}, 100)}
	}
	for i, o := range Try(in...) {
		if len(o.ID) != 1 || o.ID[0] != byte(i) {
			t.Fatalf("record %d: %+v", i, o)
		}
	}
}

func TestJudgingAllocatesNothing(t *testing.T) {
	judging(t, func(r Record) Verdict {
		if id, ok := r.Header("id"); ok {
			return Pass.Unique(id)
		}
		return Replace(Keep, r.Key()).UniqueByKey()
	})
	records := []Input{{Key: []byte("k"), Headers: []Header{{"id", []byte("1")}}}, {Key: []byte("k")}}
	Try(records...)
	nativeAddress = func(unsafe.Pointer) uint32 { return 8 }
	frame := nativeFrame(records)
	copy(guest.bytes(), frame)
	if n := testing.AllocsPerRun(100, func() { guest.process(uint32(len(frame))) }); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

func TestAConfigurationWithoutATakerIsRefused(t *testing.T) {
	judging(t, func(Record) Verdict { return Pass })
	if err := TryConfig("{}"); err != nil {
		t.Error(err)
	}
	if TryConfig(`{"a":1}`) == nil {
		t.Error("taken")
	}
	var got string
	Configure(func(c []byte) error { got = string(c); return nil })
	if err := TryConfig(`{"a":1}`); err != nil || got != `{"a":1}` {
		t.Errorf("%v %q", err, got)
	}
}

func TestMalformedFramesAreRefused(t *testing.T) {
	judging(t, func(Record) Verdict { return Pass })
	good := nativeFrame([]Input{{Key: []byte("k")}})
	for name, damage := range map[string]func(f []byte) []byte{
		"short":      func(f []byte) []byte { return f[:63] },
		"magic":      func(f []byte) []byte { f[3] = '2'; return f },
		"version":    func(f []byte) []byte { f[4] = 2; return f },
		"count":      func(f []byte) []byte { f[11] = 0xff; return f },
		"table":      func(f []byte) []byte { f[35] = 0xff; return f },
		"misaligned": func(f []byte) []byte { f[32]++; return f },
	} {
		f := damage(append([]byte(nil), good...))
		guest.alloc(uint32(len(f)))
		copy(guest.bytes(), f)
		if guest.process(uint32(len(f))) != nil {
			t.Errorf("%s: judged", name)
		}
	}
}
