package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/millrace-io/millrace/plugins/abi"
)

// BenchmarkFuel tells what a unit of fuel costs: about a nanosecond is what slices and budgets were chosen by.
func BenchmarkFuel(b *testing.B) {
	e := newEngine(b)
	c := script(b, e, "")
	spin := frameOf("z=100000")
	keys := &abi.Frame{Projection: all}
	for i := range 500 {
		keys.Records = append(keys.Records, abi.Record{Offset: int64(i), Key: fmt.Appendf(nil, "k%014d", i), Value: make([]byte, 85)})
	}
	goGuest := load(b, e, buildGo(b), StageConfig{Projection: abi.ProjectValue})
	json := &abi.Frame{Projection: abi.ProjectValue}
	for i := range 100 {
		json.Records = append(json.Records, abi.Record{Offset: int64(i), Value: fmt.Appendf(nil, `{"id":"order-%d","customer":"c-%d","amount":12.5,"items":[1,2,3]}`, i, i)})
	}
	for _, run := range []struct {
		name   string
		module *Module
		frame  *abi.Frame
	}{{"c-loop", c, spin}, {"c-500-keys", c, keys}, {"go-100-json", goGuest, json}} {
		b.Run(run.name, func(b *testing.B) {
			var answer abi.Answer
			var fuel uint64
			for b.Loop() {
				var err error
				if fuel, err = run.module.Judge(context.Background(), run.frame, &answer); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(fuel), "fuel/frame")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(fuel), "ns/fuel")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(run.frame.Records)), "ns/record")
		})
	}
}
