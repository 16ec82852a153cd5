package tck

import (
	"fmt"
	"testing"

	"github.com/millrace-io/millrace/plugins/abi"
)

// A frame of 500 records of 100 bytes, and one of a single record, through built-ins: restore, call and answer.
func BenchmarkBuiltin(b *testing.B) {
	e := newEngine(b)
	for _, name := range []string{"dedup-key", "dedup-header", "dedup-json", "filter-json", "redact"} {
		m, metered := builtin(b, name)
		g := load(b, e, metered, stageConfig(m, builtinConfigs[name]))
		for _, n := range []int{1, 500, 4096} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				f := frameOf([]abi.Record{{}}, abi.Projection(m.Projection))
				f.Records = nil
				for i := range n {
					value := fmt.Sprintf(`{"name":"an event of some kind","id":"%016d","state":"done","amount":12.50}`, i)
					f.Records = append(f.Records, abi.Record{Offset: int64(i), Key: fmt.Appendf(nil, "key-%012d", i), Value: []byte(value)})
				}
				var answer abi.Answer
				for b.Loop() {
					if _, err := g.Judge(b.Context(), f, &answer); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
			})
		}
	}
}
