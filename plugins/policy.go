package plugins

import (
	"fmt"
	"strings"
)

// ErrorPolicy says what becomes of a record at which a plugin fails, and of one that a plugin dead-letters.
type ErrorPolicy uint8

// The policies; the numbers are on disk and in judge keys.
const (
	PolicyDeadLetter ErrorPolicy = 1
	PolicySkip       ErrorPolicy = 2
	PolicyPass       ErrorPolicy = 3
	PolicyStop       ErrorPolicy = 4
)

// policyNames is in the order of the numbers.
var policyNames = [...]string{"dead-letter", "skip", "pass", "stop"}

func (p ErrorPolicy) String() string {
	if p < 1 || int(p) > len(policyNames) {
		return fmt.Sprintf("policy %d", uint8(p))
	}
	return policyNames[p-1]
}

// ParseErrorPolicy reads the name of a policy.
func ParseErrorPolicy(s string) (ErrorPolicy, error) {
	for i, name := range policyNames {
		if s == name {
			return ErrorPolicy(i + 1), nil
		}
	}
	return 0, fmt.Errorf("policy %q is none of %s", s, strings.Join(policyNames[:], ", "))
}

// Projection says which parts of a record a guest is given; its bits are those of the frame header.
type Projection uint16

// The parts of a record.
const (
	ProjectKey Projection = 1 << iota
	ProjectValue
	ProjectHeaders
)

// projectionNames is in the order of the bits.
var projectionNames = [...]string{"key", "value", "headers"}

func (p Projection) String() string {
	var parts []string
	for i, name := range projectionNames {
		if p&(1<<i) != 0 {
			parts = append(parts, name)
		}
	}
	if p>>len(projectionNames) != 0 {
		return fmt.Sprintf("projection %#x", uint16(p))
	}
	return strings.Join(parts, ",")
}

// ParseProjection reads names of parts. No name is no part: a plugin may judge by timestamp alone.
func ParseProjection(names []string) (Projection, error) {
	var p Projection
next:
	for _, s := range names {
		for i, name := range projectionNames {
			if s == name {
				p |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("%q is none of %s", s, strings.Join(projectionNames[:], ", "))
	}
	return p, nil
}
