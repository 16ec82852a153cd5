package abi

import (
	"bytes"
	"encoding/hex"
	"math"
	"strings"
	"testing"
)

func headerBlob(pairs ...string) []byte {
	var headers []Header
	for i := 0; i < len(pairs); i += 2 {
		headers = append(headers, Header{Key: []byte(pairs[i]), Value: []byte(pairs[i+1])})
	}
	return AppendHeaders(nil, headers)
}

func write(t *testing.T, f *Frame) []byte {
	t.Helper()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	dst := bytes.Repeat([]byte{0xAA}, size) // guest memory is not clean
	f.Write(dst)
	return dst
}

func TestFrameHasTheDocumentedBytes(t *testing.T) {
	f := &Frame{BaseOffset: 7, BaseTimestamp: 1000, Projection: ProjectKey | ProjectValue | ProjectHeaders, Records: []Record{
		{Offset: 7, Timestamp: 1000, Key: []byte("k"), Value: []byte{}, Headers: headerBlob("h", "v")},
		{Offset: 9, Timestamp: 995, Value: []byte("xyz")},
	}}
	want := strings.Join([]string{
		"4d524631", "0100", "0700", "02000000", "ffffffff", "0700000000000000", "e803000000000000",
		"40000000", "90000000", "12000000", strings.Repeat("00", 20),
		"0000000000000000", "00000000", "00000000", "9000000001000000", "9100000000000000", "910000000e000000",
		"fbffffffffffffff", "02000000", "00000000", "00000000ffffffff", "9f00000003000000", "00000000ffffffff",
		"6b", "01000000" + "01000000" + "68" + "01000000" + "76", "78797a",
	}, "")
	if got := hex.EncodeToString(write(t, f)); got != want {
		t.Fatalf("frame\n got %s\nwant %s", got, want)
	}
}

func TestUndeclaredPartsAreNotCopied(t *testing.T) {
	f := &Frame{Projection: ProjectKey, Records: []Record{{Key: []byte("key"), Value: []byte("secret"), Headers: headerBlob("a", "b")}}}
	got := write(t, f)
	if len(got) != HeaderBytes+RecordBytes+3 || bytes.Contains(got, []byte("secret")) {
		t.Fatalf("the frame holds more than the key: %q", got)
	}
	for at := HeaderBytes + 24; at < HeaderBytes+40; at += 8 {
		if hex.EncodeToString(got[at:at+8]) != "00000000ffffffff" {
			t.Fatalf("part at %d is not null: % x", at, got[at:at+8])
		}
	}
}

func TestFrameRefusesOffsetsBeyondTheirDelta(t *testing.T) {
	for _, offset := range []int64{9, 10 + math.MaxInt32 + 1} {
		f := &Frame{BaseOffset: 10, Records: []Record{{Offset: offset}}}
		if _, err := f.Size(); err == nil {
			t.Errorf("offset %d was taken", offset)
		}
	}
	if _, err := (&Frame{Projection: 8}).Size(); err == nil {
		t.Error("an unknown projection bit was taken")
	}
}

func TestCursorIsTheGuestsIndexOrNothing(t *testing.T) {
	frame := write(t, &Frame{Records: make([]Record, 3)})
	if _, ok := Cursor(frame, 3); ok {
		t.Error("a fresh frame reports a record")
	}
	frame[12], frame[13], frame[14], frame[15] = 2, 0, 0, 0
	if at, ok := Cursor(frame, 3); !ok || at != 2 {
		t.Errorf("cursor = %d, %v", at, ok)
	}
	if _, ok := Cursor(frame, 2); ok {
		t.Error("a cursor beyond the frame counts")
	}
}

func TestHeadersRefuseWhatDoesNotAddUp(t *testing.T) {
	good := headerBlob("a", "1", "b", "")
	if err := CheckHeaders(good); err != nil {
		t.Fatal(err)
	}
	if err := CheckHeaders(AppendHeaders(nil, []Header{{Key: []byte("n")}})); err != nil {
		t.Fatalf("null value: %v", err)
	}
	for n := range len(good) {
		if CheckHeaders(good[:n:n]) == nil && n != 0 {
			t.Errorf("cut at %d was taken", n)
		}
	}
	for name, blob := range map[string][]byte{
		"empty": {}, "behind": append(bytes.Clone(good), 0), "null key": {1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0},
		"count": {255, 255, 255, 255}, "length": {1, 0, 0, 0, 254, 255, 255, 255},
	} {
		if CheckHeaders(blob) == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestFrameComesBackFromItsBytes(t *testing.T) {
	f := &Frame{BaseOffset: 7, BaseTimestamp: 1000, Projection: ProjectKey | ProjectHeaders, Records: []Record{
		{Offset: 7, Timestamp: 1000, Key: []byte("k"), Headers: headerBlob("h", "v")}, {Offset: 9, Timestamp: 995, Key: []byte{}},
	}}
	raw := write(t, f)
	got, err := ParseFrame(raw)
	if err != nil {
		t.Fatal(err)
	}
	if again := write(t, got); !bytes.Equal(again, raw) {
		t.Errorf("frame\n got %x\nwant %x", again, raw)
	}
	for n := range raw {
		if _, err := ParseFrame(raw[:n]); err == nil {
			t.Errorf("cut at %d was taken", n)
		}
	}
	for at := range raw {
		flipped := bytes.Clone(raw)
		flipped[at] ^= 0x80
		if f, err := ParseFrame(flipped); err == nil && len(f.Records) != 2 {
			t.Errorf("a flip at %d made %d records", at, len(f.Records))
		}
	}
}
