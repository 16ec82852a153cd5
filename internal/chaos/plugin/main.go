// The plugin that internal/chaos binds. A record says in its value what shall become of it, and version 2 differs from
// version 1 in what it drops and in what makes an event the same. The oracle has its own idea of the same rules.
package main

import (
	"bytes"

	millrace "github.com/millrace-io/millrace/plugins/guest/go"
)

// version is set by the linker: 1 or 2.
var version = "1"

func init() { millrace.Judge(judge) }

func main() {}

func judge(r millrace.Record) millrace.Verdict {
	value := r.Value()
	id := field(value, `"id":"`)
	switch kind := string(field(value, `"kind":"`)); kind {
	case "drop", "odd":
		if (kind == "drop") == (version == "1") {
			return millrace.Drop
		}
	case "bad":
		return millrace.DeadLetter(7, "marked bad")
	case "trap":
		panic("marked trap")
	case "spin":
		for spin := 0; ; spin++ {
			bytes.Count(value, id)
		}
	case "anon":
		return millrace.Pass
	case "swap":
		return millrace.Replace(millrace.Keep, append(append([]byte("swapped by "+version+": "), value...), '!')).Unique(identity(id, value))
	}
	return millrace.Pass.Unique(identity(id, value))
}

// identity is the event's id, and from version 2 on its revision too.
func identity(id, value []byte) []byte {
	if version == "1" {
		return id
	}
	return append(append(append([]byte{}, id...), '/'), field(value, `"rev":"`)...)
}

// field returns what stands between prefix and the next quotation mark.
func field(value []byte, prefix string) []byte {
	_, rest, _ := bytes.Cut(value, []byte(prefix))
	text, _, _ := bytes.Cut(rest, []byte(`"`))
	return text
}
