package tck

import (
	"bytes"
	"fmt"

	"github.com/millrace-io/millrace/plugins"
	"github.com/millrace-io/millrace/plugins/abi"
)

// GoldenFrames are the frames that are judged at admission and again wherever the module is loaded: one for each case
// of the manifest that has the configuration given, and one of odd records that any guest must bear. They are a
// function of the manifest.
func GoldenFrames(m *plugins.Manifest, config []byte) []*abi.Frame {
	var frames []*abi.Frame
	for i := range m.Cases {
		c := &m.Cases[i]
		if len(c.Records) > 0 && bytes.Equal(c.Config, config) {
			frames = append(frames, frameOf(CaseRecords(c), abi.Projection(m.Projection)))
		}
	}
	return append(frames, frameOf(OddRecords(), abi.Projection(m.Projection)))
}

func frameOf(records []abi.Record, p abi.Projection) *abi.Frame {
	return &abi.Frame{BaseOffset: records[0].Offset, BaseTimestamp: records[0].Timestamp, Projection: p, Records: records}
}

// OddRecords are records as they occur and are forgotten: null and empty parts, gaps between offsets, times that run
// backwards, text that is none, JSON of every shape, repeated and null headers, a thousand bytes of one letter.
func OddRecords() []abi.Record {
	headers := abi.AppendHeaders(nil, []abi.Header{
		{Key: []byte("event-id"), Value: []byte("e-1")}, {Key: []byte("empty"), Value: []byte{}},
		{Key: []byte("null")}, {Key: []byte("event-id"), Value: []byte("e-2")}, {Key: []byte{}, Value: []byte("no name")},
	})
	values := []string{
		`{"id":1}`, `{"id":"1"}`, `{"id":1.0}`, `{"id":null}`, `{"id":{"id":1}}`, `{"id":1,"id":2}`, `{"a":{"b":"c"}}`, `[1,2,3]`, `"text"`, `{`,
		`{"id":"\u00e9\ud83d\ude00"}`, ` { "id" : [ ] } `, "\x00\xff\xfe", "plain text, with commas", "-1", "null",
	}
	var records []abi.Record
	add := func(key, value, headers []byte) {
		i := int64(len(records))
		records = append(records, abi.Record{Offset: 7 + i*i, Timestamp: caseTimestamp - i*1_000 + i*i*100, Key: key, Value: value, Headers: headers})
	}
	add(nil, nil, nil)
	add([]byte{}, []byte{}, abi.AppendHeaders(nil, nil))
	add([]byte("key"), nil, headers)
	add(nil, []byte("value"), headers)
	add(bytes.Repeat([]byte("k"), abi.IDBytesMax), []byte("longest id"), nil)
	add([]byte("\xc3\x28\x00"), bytes.Repeat([]byte("x"), 1000), nil)
	for i, v := range values {
		add(fmt.Appendf(nil, "key-%d", i%5), []byte(v), nil)
	}
	return records
}
