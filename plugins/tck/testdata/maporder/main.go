//go:build wasip1

// Does what a plugin must not: it counts its calls, and answers by the order in which a map is walked. Both depend on
// what the instance did before, so only an instance that is restored before every frame makes them a function of it.
package main

import "example.com/maporder/millrace"

var (
	calls int
	names = map[string]bool{"a": true, "b": true, "c": true, "d": true, "e": true, "f": true, "g": true, "h": true}
)

func init() { millrace.Judge(judge) }

func main() {}

func judge(r millrace.Record) millrace.Verdict {
	calls++
	order := []byte{byte('0' + calls%10)}
	for name := range names {
		order = append(order, name...)
	}
	return millrace.Replace(order, millrace.Keep)
}
