package abi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

var testLimits = Limits{OutputBytesMax: 64, FrameOutputBytesMax: 100}

// guest builds a memory with an answer in it, as a guest would.
type guest struct {
	memory  []byte
	entries []byte
	count   uint32
}

func newGuest() *guest { return &guest{memory: make([]byte, 16)} }

func (g *guest) place(b string) (address, length uint32) {
	address = uint32(len(g.memory))
	g.memory = append(g.memory, b...)
	return address, uint32(len(b))
}

func (g *guest) verdict(kind Kind, unique Unique, id, output string) {
	idAt, idLength := g.place(id)
	outAt, outLength := g.place(output)
	g.raw(uint32(kind)|uint32(unique)<<8, 0, idAt, idLength, outAt, outLength)
}

func (g *guest) raw(words ...uint32) {
	for _, w := range words {
		g.entries = binary.LittleEndian.AppendUint32(g.entries, w)
	}
	g.count++
}

func (g *guest) finish() (memory []byte, process uint64) {
	answer := binary.LittleEndian.AppendUint32([]byte("MRA1"), g.count)
	at, length := g.place(string(append(answer, g.entries...)))
	return g.memory, uint64(at)<<32 | uint64(length)
}

func output(parts ...any) string {
	var b []byte
	for _, part := range parts {
		switch p := part.(type) {
		case string:
			b = append(binary.LittleEndian.AppendUint32(b, uint32(len(p))), p...)
		case uint32:
			b = binary.LittleEndian.AppendUint32(b, p)
		}
	}
	return string(b)
}

func records(keys ...string) *Frame {
	f := &Frame{Projection: ProjectKey}
	for i, key := range keys {
		f.Records = append(f.Records, Record{Offset: int64(i), Key: []byte(key), Value: []byte("v-" + key)})
	}
	return f
}

func TestAnswerCarriesEveryVerdict(t *testing.T) {
	g := newGuest()
	g.verdict(Pass, NotUnique, "", "")
	g.verdict(Drop, NotUnique, "", "")
	g.verdict(Replace, UniqueByID, "id-2", output(uint32(asInput), "new", uint32(nullLength)))
	g.verdict(DeadLetter, NotUnique, "", "bad \xff price")
	g.verdict(Pass, UniqueByKey, "", "")
	memory, process := g.finish()
	var a Answer
	if err := a.Read(memory, process, records("a", "b", "c", "d", "e"), testLimits); err != nil {
		t.Fatal(err)
	}
	clear(memory) // an answer never points into guest memory
	kinds := ""
	for _, v := range a.Verdicts {
		kinds += v.Kind.String() + " "
	}
	if kinds != "pass drop replace dead-letter pass " {
		t.Errorf("kinds: %s", kinds)
	}
	r := a.Verdicts[2]
	if string(r.ID) != "id-2" || string(r.Output.Key) != "c" || string(r.Output.Value) != "new" || r.Output.Headers != nil {
		t.Errorf("replaced: %q %+v", r.ID, r.Output)
	}
	if got := a.Verdicts[3].Output.Text; got != "bad \uFFFD price" {
		t.Errorf("text %q", got)
	}
	if got := a.Verdicts[4]; got.Unique != UniqueByKey || string(got.ID) != "e" {
		t.Errorf("unique by key: %+v", got)
	}
}

func TestAnswerRefusesWhatBreaksTheContract(t *testing.T) {
	const far = 1 << 31
	long := strings.Repeat("x", IDBytesMax+1)
	cases := map[string]struct {
		kind FaultKind
		fill func(*guest)
	}{
		"verdict":           {Malformed, func(g *guest) { g.raw(4, 0, 0, 0, 0, 0) }},
		"flags 3":           {Malformed, func(g *guest) { g.raw(3<<8, 0, 0, 0, 0, 0) }},
		"reserved":          {Malformed, func(g *guest) { g.raw(1<<16, 0, 0, 0, 0, 0) }},
		"unique drop":       {Malformed, func(g *guest) { g.verdict(Drop, UniqueByKey, "", "") }},
		"unique letter":     {Malformed, func(g *guest) { g.verdict(DeadLetter, UniqueByKey, "", "") }},
		"id outside":        {Malformed, func(g *guest) { g.raw(1<<8, 0, far, 4, 0, 0) }},
		"id wraps":          {Malformed, func(g *guest) { g.raw(1<<8, 0, 16, 0xFFFFFFF0, 0, 0) }},
		"id empty":          {IDLimit, func(g *guest) { g.verdict(Pass, UniqueByID, "", "") }},
		"id long":           {IDLimit, func(g *guest) { g.verdict(Pass, UniqueByID, long, "") }},
		"output outside":    {Malformed, func(g *guest) { g.raw(2, 0, 0, 0, far, 12) }},
		"output large":      {OutputLimit, func(g *guest) { g.verdict(Replace, NotUnique, "", strings.Repeat("x", 65)) }},
		"output short":      {Malformed, func(g *guest) { g.verdict(Replace, NotUnique, "", output("k", "v")) }},
		"output length":     {Malformed, func(g *guest) { g.verdict(Replace, NotUnique, "", output("k", uint32(9), "v")) }},
		"output behind":     {Malformed, func(g *guest) { g.verdict(Replace, NotUnique, "", output("k", "v", uint32(asInput), "x")) }},
		"headers malformed": {Malformed, func(g *guest) { g.verdict(Replace, NotUnique, "", output("k", "v", "\x01")) }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := newGuest()
			g.verdict(Pass, NotUnique, "", "")
			c.fill(g)
			memory, process := g.finish()
			var got *Fault
			if err := new(Answer).Read(memory, process, records("a", "b"), testLimits); !errors.As(err, &got) {
				t.Fatalf("error is %v", err)
			}
			if got.Kind != c.kind || got.Record != 1 {
				t.Errorf("fault %d of record %d (%v), want %d of 1", got.Kind, got.Record, got, c.kind)
			}
		})
	}
}

func TestFrameLimitBlamesTheRecordThatPassesIt(t *testing.T) {
	g := newGuest()
	for range 3 {
		g.verdict(DeadLetter, NotUnique, "", strings.Repeat("x", 40))
	}
	memory, process := g.finish()
	var got *Fault
	if err := new(Answer).Read(memory, process, records("a", "b", "c"), testLimits); !errors.As(err, &got) || got.Record != 2 || got.Kind != OutputLimit {
		t.Fatalf("got %v", err)
	}
}

func TestUniqueByKeyNeedsAKeyThatTheGuestWasGiven(t *testing.T) {
	g := newGuest()
	g.verdict(Pass, UniqueByKey, "", "")
	memory, process := g.finish()
	hidden := records("a")
	hidden.Projection = ProjectValue
	null := records("a")
	null.Records[0].Key = nil
	long := records(strings.Repeat("x", IDBytesMax+1))
	for name, f := range map[string]*Frame{"hidden": hidden, "null": null, "empty": records(""), "long": long} {
		var got *Fault
		if err := new(Answer).Read(memory, process, f, testLimits); !errors.As(err, &got) || got.Kind != IDLimit {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnswerAsAWholeIsChecked(t *testing.T) {
	g := newGuest()
	g.verdict(Pass, NotUnique, "", "")
	memory, process := g.finish()
	at, length := uint32(process>>32), uint32(process)
	frame := records("a")
	for name, p := range map[string]uint64{
		"zero": 0, "outside": 0xFFFFFFFF_FFFFFFFF, "short": uint64(at)<<32 | uint64(length-1), "magic": uint64(at+1)<<32 | uint64(length-1),
		"empty": uint64(at) << 32, "length": uint64(at)<<32 | 0xFFFFFFFF,
	} {
		var got *Fault
		if err := new(Answer).Read(memory, p, frame, testLimits); !errors.As(err, &got) || got.Record != -1 || got.Kind != Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := new(Answer).Read(memory, process, records("a", "b"), testLimits); err == nil {
		t.Error("a wrong count was taken")
	}
	if err := new(Answer).Read(memory, process, frame, testLimits); err != nil {
		t.Error(err)
	}
}

func TestReadingAnAnswerAgainAllocatesNothing(t *testing.T) {
	g := newGuest()
	g.verdict(Replace, UniqueByID, "id", output("k", "v", uint32(asInput)))
	memory, process := g.finish()
	frame, a := records("a"), new(Answer)
	if n := testing.AllocsPerRun(50, func() {
		if err := a.Read(memory, process, frame, testLimits); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzAnswer gives the reader any memory and any answer address: it ends, keeps its limits, and never panics.
func FuzzAnswer(f *testing.F) {
	g := newGuest()
	g.verdict(Replace, UniqueByID, "id", output("k", uint32(asInput), string(headerBlob("a", "b"))))
	g.verdict(DeadLetter, NotUnique, "", "text")
	memory, process := g.finish()
	f.Add(memory, process, uint8(2))
	f.Add([]byte{}, uint64(0), uint8(0))
	f.Fuzz(func(t *testing.T, memory []byte, process uint64, count uint8) {
		frame := &Frame{Projection: ProjectKey, Records: make([]Record, count)}
		var a Answer
		before := bytes.Clone(memory)
		err := a.Read(memory, process, frame, testLimits)
		if !bytes.Equal(before, memory) {
			t.Fatal("memory was written")
		}
		if err != nil {
			return
		}
		sum := 0
		for _, v := range a.Verdicts {
			if (v.Unique != NotUnique) != (v.ID != nil) || len(v.ID) > IDBytesMax {
				t.Fatalf("id %d bytes", len(v.ID))
			}
			if v.Output != nil {
				sum += len(v.Output.Key) + len(v.Output.Value) + len(v.Output.Headers)
			}
		}
		if len(a.Verdicts) != int(count) || sum > testLimits.FrameOutputBytesMax {
			t.Fatalf("%d verdicts, %d output bytes", len(a.Verdicts), sum)
		}
	})
}
