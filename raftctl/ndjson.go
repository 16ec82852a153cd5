package raftctl

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/millrace-io/millrace/sdk"

	"github.com/twmb/franz-go/pkg/kgo"
)

// jsonRecord is a record as a line of JSON. What consume prints, produce reads, so that records round-trip.
type jsonRecord struct {
	Topic     string      `json:"topic,omitempty"`
	Partition *int32      `json:"partition,omitempty"`
	Offset    *int64      `json:"offset,omitempty"`
	Timestamp *int64      `json:"timestamp,omitempty"` // Unix milliseconds
	Key       *jsonBytes  `json:"key"`
	Value     *jsonBytes  `json:"value"`
	Headers   jsonHeaders `json:"headers,omitempty"`
	Control   bool        `json:"control,omitempty"` // a transaction's marker, in dumps; produce leaves it out
}

// jsonHeaders is a list of {"key": ..., "value": ...}. As input an object of names and values is taken too.
type jsonHeaders []jsonHeader

// UnmarshalJSON implements json.Unmarshaler. The order of an object's members is kept.
func (h *jsonHeaders) UnmarshalJSON(raw []byte) error {
	*h = nil
	if len(raw) == 0 || raw[0] != '{' {
		return json.Unmarshal(raw, (*[]jsonHeader)(h))
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if _, err := decoder.Token(); err != nil {
		return err
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return err
		}
		header := jsonHeader{Key: jsonBytes(name.(string))} // The decoder lets nothing else stand here.
		if err := decoder.Decode(&header.Value); err != nil {
			return err
		}
		*h = append(*h, header)
	}
	return nil
}

type jsonHeader struct {
	Key   jsonBytes  `json:"key"`
	Value *jsonBytes `json:"value"`
}

// jsonBytes is a JSON string where the bytes are UTF-8, else {"base64": "..."}. As input, any other JSON stands for its own
// text, so that a value can be written as an object.
type jsonBytes []byte

// MarshalJSON implements json.Marshaler.
func (b jsonBytes) MarshalJSON() ([]byte, error) {
	if utf8.Valid(b) {
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false) // A value that holds JSON or HTML stays readable.
		err := encoder.Encode(string(b))
		return bytes.TrimSuffix(text.Bytes(), []byte("\n")), err
	}
	return json.Marshal(map[string]string{"base64": base64.StdEncoding.EncodeToString(b)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (b *jsonBytes) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err == nil {
		*b = []byte(text)
		return nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err == nil && len(object) == 1 && object["base64"] != nil {
		var encoded string
		if err := json.Unmarshal(object["base64"], &encoded); err == nil {
			decoded, err := base64.StdEncoding.DecodeString(encoded)
			*b = decoded
			return err
		}
	}
	*b = append([]byte(nil), raw...)
	return nil
}

func orNull(b []byte) *jsonBytes {
	if b == nil {
		return nil
	}
	return (*jsonBytes)(&b)
}

func orNil(b *jsonBytes) []byte {
	if b == nil {
		return nil
	}
	return *b
}

func toJSON(r *sdk.Record) jsonRecord {
	ms := r.Timestamp.UnixMilli()
	line := jsonRecord{Topic: r.Topic, Partition: &r.Partition, Offset: &r.Offset, Timestamp: &ms, Key: orNull(r.Key), Value: orNull(r.Value)}
	for _, h := range r.Headers {
		line.Headers = append(line.Headers, jsonHeader{Key: jsonBytes(h.Key), Value: orNull(h.Value)})
	}
	return line
}

// parseJSON reads a line; unknown fields are ignored so that any tool's output can be piped in.
func parseJSON(raw []byte) (*jsonRecord, error) {
	var line jsonRecord
	if err := json.Unmarshal(raw, &line); err != nil {
		return nil, fmt.Errorf("not a record as JSON, such as {\"key\": \"k\", \"value\": {\"id\": 1}}: %w", err)
	}
	return &line, nil
}

// fromJSON reads a line to produce; nil is a line that holds nothing to produce.
func fromJSON(raw []byte) (*sdk.Record, error) {
	line, err := parseJSON(raw)
	if err != nil || line.Control {
		return nil, err
	}
	if line.Key == nil && line.Value == nil && line.Headers == nil {
		var names map[string]json.RawMessage
		if err := json.Unmarshal(raw, &names); err != nil {
			return nil, err
		}
		_, key := names["key"]
		if _, value := names["value"]; !key && !value {
			return nil, errors.New("the object has no key, no value and no headers: is a name misspelt?")
		}
	}
	r := &sdk.Record{Key: orNil(line.Key), Value: orNil(line.Value), Partition: -1}
	if line.Partition != nil {
		r.Partition = *line.Partition
	}
	if line.Timestamp != nil {
		r.Timestamp = time.UnixMilli(*line.Timestamp)
	}
	for _, h := range line.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: string(h.Key), Value: orNil(h.Value)})
	}
	return r, nil
}
