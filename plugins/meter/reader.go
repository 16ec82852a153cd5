package meter

import (
	"fmt"
	"unicode/utf8"
)

// Refusal says why a module is not admitted.
type Refusal struct {
	At   int // byte in the module, 0 where no byte is to blame
	Text string
}

func (r *Refusal) Error() string {
	if r.At == 0 {
		return "module refused: " + r.Text
	}
	return fmt.Sprintf("module refused at byte %d: %s", r.At, r.Text)
}

// reader walks bytes of a module. After the first problem it is failed: every further read yields zeroes, so that a
// caller may check once.
type reader struct {
	b      []byte
	at     int // next byte in b
	offset int // of b[0] in the module
	err    *Refusal
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = &Refusal{At: r.offset + r.at, Text: fmt.Sprintf(format, args...)}
	}
	r.at = len(r.b)
}

func (r *reader) done() bool { return r.at >= len(r.b) }

func (r *reader) byte() byte {
	if r.at >= len(r.b) {
		r.fail("the bytes end early")
		return 0
	}
	c := r.b[r.at]
	r.at++
	return c
}

func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)-r.at) {
		r.fail("%d bytes are announced, %d are left", n, len(r.b)-r.at)
		return nil
	}
	part := r.b[r.at : r.at+int(n) : r.at+int(n)]
	r.at += int(n)
	return part
}

// u32 reads an unsigned LEB128 of at most five bytes.
func (r *reader) u32() uint32 {
	var value uint64
	for shift := 0; ; shift += 7 {
		c := r.byte()
		value |= uint64(c&0x7F) << shift
		if c&0x80 == 0 {
			if value > 0xFFFFFFFF {
				r.fail("a number passes 32 bits")
				return 0
			}
			return uint32(value)
		}
		if shift == 28 {
			r.fail("a number of more than five bytes")
			return 0
		}
	}
}

// signed passes over a signed LEB128 of at most bits, and returns its value.
func (r *reader) signed(bits int) int64 {
	var value int64
	for shift := 0; ; shift += 7 {
		c := r.byte()
		value |= int64(c&0x7F) << shift
		if c&0x80 == 0 {
			if c&0x40 != 0 && shift+7 < 64 {
				value |= -1 << (shift + 7)
			}
			return value
		}
		if shift+7 >= bits {
			r.fail("a number of too many bytes")
			return 0
		}
	}
}

// name reads a string of UTF-8.
func (r *reader) name() string {
	b := r.take(r.u32())
	if !utf8.Valid(b) {
		r.fail("a name is no UTF-8")
		return ""
	}
	return string(b)
}

// count reads a number of items, each of which takes at least one byte of what is left.
func (r *reader) count(what string, limit uint32) uint32 {
	n := r.u32()
	if n > limit {
		r.fail("%d %s; %d are allowed", n, what, limit)
		return 0
	}
	if uint64(n) > uint64(len(r.b)-r.at) {
		r.fail("%d %s do not fit the %d bytes that are left", n, what, len(r.b)-r.at)
		return 0
	}
	return n
}

// writer appends the encodings of the binary format.
type writer struct{ b []byte }

func (w *writer) byte(c ...byte) { w.b = append(w.b, c...) }

func (w *writer) u32(v uint32) {
	for ; v >= 0x80; v >>= 7 {
		w.b = append(w.b, byte(v)|0x80)
	}
	w.b = append(w.b, byte(v))
}

func (w *writer) signed(v int64) {
	for v < -64 || v > 63 {
		w.b = append(w.b, byte(v)|0x80)
		v >>= 7
	}
	w.b = append(w.b, byte(v)&0x7F)
}

func (w *writer) name(s string) {
	w.u32(uint32(len(s)))
	w.b = append(w.b, s...)
}

// section appends a section with what fill writes.
func (w *writer) section(id byte, fill func(*writer)) {
	var body writer
	fill(&body)
	w.byte(id)
	w.u32(uint32(len(body.b)))
	w.b = append(w.b, body.b...)
}
