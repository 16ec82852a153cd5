package kafka

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fill sets every field of a request to something that is not its default, with two elements in every array.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "Version" && name != "UnknownTags" {
				fill(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Float64:
		v.SetFloat(1)
	case reflect.Uint8:
		v.SetUint(1)
	default:
		panic(fmt.Sprintf("no value for a %s", v.Kind()))
	}
}

func filled(key, version int16) kmsg.Request {
	req := kmsg.RequestForKey(key)
	fill(reflect.ValueOf(req).Elem())
	req.SetVersion(version)
	return req
}

func TestEveryAdvertisedVersionIsAnswered(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 1)
	c := dialRaw(t, f.serveTCP())
	for _, row := range matrix {
		for version := row.min; version <= row.max; version++ {
			empty := kmsg.RequestForKey(row.key)
			empty.SetVersion(version)
			if produce, ok := empty.(*kmsg.ProduceRequest); ok {
				produce.Acks = -1
			}
			for _, req := range []kmsg.Request{empty, filled(row.key, version)} {
				if resp := c.receive(req, c.send(req)); resp.GetVersion() != version {
					t.Errorf("%s version %d answered in version %d", row.name, version, resp.GetVersion())
				}
			}
		}
	}
}

func TestEveryShapeIsThatOfTheRequest(t *testing.T) {
	for _, row := range matrix {
		for version := row.min; version <= row.max; version++ {
			req := filled(row.key, version)
			body := req.AppendTo(nil)
			if err := checkShape(row.key, version, req.IsFlexible(), body); err != nil {
				t.Errorf("%s: %v", row.name, err)
			}
			w := walker{rest: body, version: version, flexible: req.IsFlexible()}
			if w.all(shapes[row.key]); len(w.rest) != 0 {
				t.Errorf("%s version %d: the shape leaves %d of %d bytes", row.name, version, len(w.rest), len(body))
			}
			for cut := range body {
				if err := checkShape(row.key, version, req.IsFlexible(), body[:cut]); err == nil {
					t.Errorf("%s version %d: %d of %d bytes pass for a whole request", row.name, version, cut, len(body))
				}
			}
		}
	}
}

// FuzzDecode looks for a request that panics the decoder, or takes memory far beyond its own size.
func FuzzDecode(f *testing.F) {
	for _, row := range matrix {
		for version := row.min; version <= row.max; version++ {
			f.Add(kmsg.NewRequestFormatter().AppendRequest(nil, filled(row.key, version), 1)[4:])
		}
	}
	s := &session{Server: &Server{Config: Config{Metrics: NoMetrics{}}}, authenticated: true}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) < minHeaderBytes {
			return
		}
		before := memory()
		_, _, _ = s.decode(body)
		if took := memory() - before; took > uint64(1<<20+200*len(body)) {
			t.Fatalf("%d bytes took %d bytes of memory", len(body), took)
		}
	})
}
