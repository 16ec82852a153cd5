package kafka

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Decoding allocates by the counts that a request claims, so every count is checked first: a walk over the request in
// place demands that as many elements can lie in the bytes that are left (X2). It allocates nothing, bounds the work by
// the bytes of the frame, and knows the layout of each request from a shape.

// requestElementsMax bounds the array elements of one request, all arrays together: what is kept for an element is some
// thirty times what it takes on the wire. A client with more partitions than this asks twice.
const requestElementsMax = 1 << 18

// kind is how a field is encoded.
type kind uint8

const (
	fixed kind = iota // size bytes
	text              // a string, perhaps null
	blob              // bytes, perhaps null
	array             // elements of fields, perhaps null
	maybe             // a byte that is -1 for null, else fields
	texts             // elements that are strings
	ints              // elements of size bytes
)

// field is one field of a request in the versions from min to max.
type field struct {
	kind     kind
	size     int
	min, max int16
	fields   []field
}

// present reports whether the field exists in a version.
func (f field) present(version int16) bool { return version >= f.min && version <= f.max }

// from limits a field to the versions from min on, until to those up to max.
func (f field) from(min int16) field  { f.min = min; return f }
func (f field) until(max int16) field { f.max = max; return f }

func raw(n int) field            { return field{kind: fixed, size: n, max: math.MaxInt16} }
func str() field                 { return field{kind: text, max: math.MaxInt16} }
func data() field                { return field{kind: blob, max: math.MaxInt16} }
func strs() field                { return field{kind: texts, max: math.MaxInt16} }
func int32s() field              { return field{kind: ints, size: 4, max: math.MaxInt16} }
func int8s() field               { return field{kind: ints, size: 1, max: math.MaxInt16} }
func list(of ...field) field     { return field{kind: array, fields: of, max: math.MaxInt16} }
func optional(of ...field) field { return field{kind: maybe, fields: of, max: math.MaxInt16} }
func shape(of ...field) []field  { return of }

// shapes holds the layout of every request that is decoded, by API key.
var shapes = map[int16][]field{
	keyProduce: shape(str().from(3), raw(2), raw(4), list(
		str().until(12), raw(16).from(13), list(raw(4), data()))),
	keyFetch: shape(raw(4).until(14), raw(4+4+4+1), raw(8).from(7), list(
		str().until(12), raw(16).from(13), list(
			raw(4), raw(4).from(9), raw(8), raw(4).from(12), raw(8).from(5), raw(4))),
		list(str().until(12), raw(16).from(13), int32s()).from(7), str().from(11)),
	keyListOffsets: shape(raw(4), raw(1).from(2), list(
		str(), list(raw(4), raw(4).from(4), raw(8))), raw(4).from(10)),
	keyMetadata: shape(list(raw(16).from(10), str()), raw(1).from(4), raw(1).from(8).until(10), raw(1).from(8)),
	keyOffsetCommit: shape(str(), raw(4), str(), str().from(7), raw(8).until(4), list(
		str().until(9), raw(16).from(10), list(raw(4+8), raw(4).from(6), str()))),
	keyOffsetFetch: shape(str().until(7), list(str(), int32s()).until(7), list(
		str(), str().from(9), raw(4).from(9), list(str().until(9), raw(16).from(10), int32s())).from(8),
		raw(1).from(7)),
	keyFindCoordinator: shape(str().until(3), raw(1).from(1), strs().from(4)),
	keyJoinGroup: shape(str(), raw(4), raw(4).from(1), str(), str().from(5), str(),
		list(str(), data()), str().from(8)),
	keyHeartbeat:      shape(str(), raw(4), str(), str().from(3)),
	keyLeaveGroup:     shape(str(), str().until(2), list(str(), str(), str().from(5)).from(3)),
	keySyncGroup:      shape(str(), raw(4), str(), str().from(3), str().from(5), str().from(5), list(str(), data())),
	keyDescribeGroups: shape(strs(), raw(1).from(3)),
	keyListGroups:     shape(strs().from(4), strs().from(5)),
	keyApiVersions:    shape(str().from(3), str().from(3)),
	keyCreateTopics: shape(list(str(), raw(4+2), list(raw(4), int32s()), list(str(), str())),
		raw(4), raw(1)),
	keyDeleteTopics:                shape(strs().until(5), list(str(), raw(16)).from(6), raw(4)),
	keyInitProducerID:              shape(str(), raw(4), raw(8+2).from(3)),
	keyOffsetForLeaderEpoch:        shape(raw(4).from(3), list(str(), list(raw(4+4+4)))),
	keyDescribeConfigs:             shape(list(raw(1), str(), strs()), raw(1), raw(1).from(3)),
	keyCreatePartitions:            shape(list(str(), raw(4), list(int32s())), raw(4+1)),
	keyElectLeaders:                shape(raw(1).from(1), list(str(), int32s()), raw(4)),
	keyDescribeLogDirs:             shape(list(str(), int32s())),
	keyListPartitionReassignments:  shape(raw(4), list(str(), int32s())),
	keyAlterPartitionReassignments: shape(raw(4), raw(1).from(1), list(str(), list(raw(4), int32s()))),
	keyDescribeClientQuotas:        shape(list(str(), raw(1), str()), raw(1)),
	keyAlterClientQuotas:           shape(list(list(str(), str()), list(str(), raw(8+1))), raw(1)),
	keyDescribeQuorum:              shape(list(str(), list(raw(4)))),
	keyUpdateFeatures:              shape(raw(4), list(str(), raw(2), raw(1).until(0), raw(1).from(1)), raw(1).from(1)),
	keyDescribeCluster:             shape(raw(1), raw(1).from(1), raw(1).from(2)),
	keyDescribeProducers:           shape(list(str(), int32s())),
	keyDescribeTopicPartitions:     shape(list(str()), raw(4), optional(str(), raw(4))),
	keyDeleteGroups:                shape(strs()),
	keyDeleteRecords:               shape(list(str(), list(raw(4+8))), raw(4)),
	keyOffsetDelete:                shape(str(), list(str(), list(raw(4)))),
	keyAlterConfigs:                shape(list(raw(1), str(), list(str(), str())), raw(1)),
	keyIncrementalAlterConfigs:     shape(list(raw(1), str(), list(str(), raw(1), str())), raw(1)),
	keyListConfigResources:         shape(int8s().from(1)),
	keyConsumerGroupHeartbeat: shape(str(), str(), raw(4), str(), str(), raw(4), strs(), str().from(1), str(),
		list(raw(16), int32s())),
	keyConsumerGroupDescribe: shape(strs(), raw(1)),
	keySaslHandshake:         shape(str()),
	keySaslAuthenticate:      shape(data()),
	keyDescribeACLs:          shape(raw(1), str(), raw(1), str(), str(), raw(2)),
	keyCreateACLs:            shape(list(raw(1), str(), raw(1), str(), str(), raw(2))),
	keyDeleteACLs:            shape(list(raw(1), str(), raw(1), str(), str(), raw(2))),

	keyDescribeUserScramCredentials: shape(list(str())),
	keyAlterUserScramCredentials:    shape(list(str(), raw(1)), list(str(), raw(1+4), data(), data())),
}

// checkShape walks a request's body and reports the first count or length that its bytes cannot hold. Bytes behind the
// last field are allowed, as Kafka allows them.
func checkShape(key, version int16, flexible bool, body []byte) error {
	w := walker{rest: body, version: version, flexible: flexible}
	w.all(shapes[key])
	if w.bad {
		return fmt.Errorf("api %d version %d: a count or length passes the end of the request", key, version)
	}
	return nil
}

// walker steps over encoded fields. Once bad, it stays so and has nothing left.
type walker struct {
	rest     []byte
	version  int16
	flexible bool
	bad      bool
	elements int // of all arrays so far
}

// all steps over fields and, in flexible versions, the tags behind them.
func (w *walker) all(fields []field) {
	for i := range fields {
		if f := &fields[i]; f.present(w.version) {
			w.field(f)
		}
	}
	if w.flexible {
		w.tags()
	}
}

func (w *walker) field(f *field) {
	switch f.kind {
	case fixed:
		w.take(f.size)
	case text:
		w.take(w.length(2))
	case blob:
		w.take(w.length(4))
	case array:
		for range w.count(w.minBytes(f.fields)) {
			w.all(f.fields)
			if w.bad {
				return
			}
		}
	case maybe:
		if present := w.take(1); present != nil && int8(present[0]) != -1 {
			w.all(f.fields)
		}
	case texts:
		for range w.count(w.lengthBytes(2)) {
			w.take(w.length(2))
			if w.bad {
				return
			}
		}
	case ints:
		w.take(f.size * w.count(f.size))
	}
}

// minBytes is the least that an element of fields takes.
func (w *walker) minBytes(fields []field) int {
	total := 0
	if w.flexible {
		total++ // no tags
	}
	for i := range fields {
		f := &fields[i]
		switch {
		case !f.present(w.version):
		case f.kind == fixed:
			total += f.size
		case f.kind == maybe:
			total++
		case f.kind == text:
			total += w.lengthBytes(2)
		default:
			total += w.lengthBytes(4)
		}
	}
	return max(total, 1)
}

// lengthBytes is the least that a length prefix takes.
func (w *walker) lengthBytes(plain int) int {
	if w.flexible {
		return 1
	}
	return plain
}

// length reads a length of plain bytes, or a compact one. Null is 0.
func (w *walker) length(plain int) int {
	switch {
	case w.flexible:
		return max(w.uvarint()-1, 0)
	case plain == 2:
		return max(int(w.int16()), 0)
	default:
		return max(int(w.int32()), 0)
	}
}

// count reads an array's length and demands that as many elements of at least each bytes can follow.
func (w *walker) count(each int) int {
	n := w.length(4)
	if n > len(w.rest)/each || n > requestElementsMax-w.elements {
		w.fail()
		return 0
	}
	w.elements += n
	return n
}

func (w *walker) tags() {
	n := w.uvarint()
	if n > len(w.rest)/2 {
		w.fail()
		return
	}
	for range n {
		w.uvarint()
		w.take(w.uvarint())
		if w.bad {
			return
		}
	}
}

func (w *walker) take(n int) []byte {
	if n < 0 || n > len(w.rest) {
		w.fail()
		return nil
	}
	taken := w.rest[:n]
	w.rest = w.rest[n:]
	return taken
}

func (w *walker) int16() int16 {
	if b := w.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (w *walker) int32() int32 {
	if b := w.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

// uvarint reads at most five bytes; what passes an int32 is not a length that Kafka can mean.
func (w *walker) uvarint() int {
	var value uint64
	for i := range 5 {
		b := w.take(1)
		if b == nil {
			return 0
		}
		value |= uint64(b[0]&0x7f) << (7 * i)
		if b[0] < 0x80 {
			if value > math.MaxInt32 {
				break
			}
			return int(value)
		}
	}
	w.fail()
	return 0
}

func (w *walker) fail() {
	w.bad, w.rest = true, nil
}
