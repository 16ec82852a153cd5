// The plugin that internal/bench binds where a Go guest is wanted, and where a hostile one is: the first byte of a
// record's key says how it shall behave.
package main

import millrace "github.com/millrace-io/millrace/plugins/guest/go"

// burnTurns is how long a burning record loops: nearly a record's budget of 1,000,000.
const burnTurns = 150_000

// spun keeps the loops from being optimised away.
var spun uint64

func init() { millrace.Judge(judge) }

func main() {}

func judge(r millrace.Record) millrace.Verdict {
	key := r.Key()
	if len(key) == 0 {
		return millrace.Pass
	}
	switch key[0] {
	case 'N': // never returns
		for {
			spun++
		}
	case 'B': // burns its budget
		for range burnTurns {
			spun = spun*6364136223846793005 + 1
		}
	case 'P': // poison
		panic("poison")
	}
	return millrace.Pass.UniqueByKey()
}
