package raftctl

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/sdk"
)

// A format string says how a record is printed or read: %k key, %v value, %t topic, %p partition, %o offset, %T timestamp
// in Unix milliseconds, %h headers, %K and %V the lengths of key and value, %% a percent sign, and the escapes \n \t \\.
type format []formatPart

type formatPart struct {
	verb    byte // 0: literal
	literal string
}

const formatVerbs = "kvtpoThKV"

func parseFormat(text string) (format, error) {
	var parts format
	literal := func(s string) {
		if n := len(parts); n > 0 && parts[n-1].verb == 0 {
			parts[n-1].literal += s
			return
		}
		parts = append(parts, formatPart{literal: s})
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		if (c == '%' || c == '\\') && i+1 == len(text) {
			return nil, usageError("format %q ends in %q", text, string(c))
		}
		switch c {
		case '%':
			i++
			switch {
			case text[i] == '%':
				literal("%")
			case strings.IndexByte(formatVerbs, text[i]) >= 0:
				parts = append(parts, formatPart{verb: text[i]})
			default:
				return nil, usageError("format %q: %%%c is none of %%%s", text, text[i], strings.Join(strings.Split(formatVerbs, ""), " %"))
			}
		case '\\':
			i++
			escapes := map[byte]string{'n': "\n", 't': "\t", '\\': "\\", '0': "\x00"}
			s, ok := escapes[text[i]]
			if !ok {
				return nil, usageError(`format %q: \%c is none of \n \t \0 \\`, text, text[i])
			}
			literal(s)
		default:
			literal(string(c))
		}
	}
	return parts, nil
}

// append prints r.
func (f format) append(dst []byte, r *sdk.Record) []byte {
	for _, part := range f {
		switch part.verb {
		case 0:
			dst = append(dst, part.literal...)
		case 'k':
			dst = append(dst, r.Key...)
		case 'v':
			dst = append(dst, r.Value...)
		case 't':
			dst = append(dst, r.Topic...)
		case 'p':
			dst = strconv.AppendInt(dst, int64(r.Partition), 10)
		case 'o':
			dst = strconv.AppendInt(dst, r.Offset, 10)
		case 'T':
			dst = strconv.AppendInt(dst, r.Timestamp.UnixMilli(), 10)
		case 'K':
			dst = strconv.AppendInt(dst, int64(len(r.Key)), 10)
		case 'V':
			dst = strconv.AppendInt(dst, int64(len(r.Value)), 10)
		case 'h':
			for i, h := range r.Headers {
				if i > 0 {
					dst = append(dst, ',')
				}
				dst = append(append(append(dst, h.Key...), '='), h.Value...)
			}
		}
	}
	return dst
}

// checkReadable refuses a format that cannot be read back: only %k and %v, something between them, a newline at the end.
func (f format) checkReadable() error {
	for i, part := range f {
		if part.verb != 0 && part.verb != 'k' && part.verb != 'v' {
			return usageError("produce -f: only %%k and %%v can be read, not %%%c", part.verb)
		}
		if part.verb != 0 && i > 0 && f[i-1].verb != 0 {
			return usageError("produce -f: put something between %%%c and %%%c", f[i-1].verb, part.verb)
		}
	}
	return nil
}

// read takes a line apart. The line has no newline any more, so one at the end of the format matches the end.
func (f format) read(line []byte) (*sdk.Record, error) {
	r := &sdk.Record{Partition: -1}
	rest := line
	for i, part := range f {
		if part.verb == 0 {
			literal := []byte(part.literal)
			if i == len(f)-1 {
				literal = bytes.TrimSuffix(literal, []byte("\n"))
			}
			if !bytes.HasPrefix(rest, literal) {
				return nil, fmt.Errorf("expected %q before %q", literal, rest)
			}
			rest = rest[len(literal):]
			continue
		}
		field := rest
		if i+1 < len(f) {
			until := []byte(f[i+1].literal)
			if i+1 == len(f)-1 {
				until = bytes.TrimSuffix(until, []byte("\n"))
			}
			if len(until) > 0 {
				at := bytes.Index(rest, until)
				if at < 0 {
					return nil, fmt.Errorf("no %q after %%%c in %q", until, part.verb, rest)
				}
				field = rest[:at]
			}
		}
		rest = rest[len(field):]
		if part.verb == 'k' {
			r.Key = append([]byte{}, field...)
		} else {
			r.Value = append([]byte{}, field...)
		}
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%q is left over", rest)
	}
	return r, nil
}
