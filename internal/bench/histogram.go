package main

import (
	"math/bits"
	"time"
)

// histogramBits says how exact a histogram is: within 1/128 of a latency.
const histogramBits = 7

// histogram counts latencies in buckets that grow with them, as HdrHistogram does, from a nanosecond on. It is not safe
// for concurrent use.
type histogram struct {
	counts [(64 - histogramBits + 1) << histogramBits]uint64
	total  uint64
}

// bucketOf numbers buckets: the first 128 hold a nanosecond each, every further 128 twice as many as those before.
func bucketOf(nanos uint64) int {
	shift := max(bits.Len64(nanos)-histogramBits-1, 0)
	return shift<<histogramBits + int(nanos>>shift)
}

// upper is the longest latency of a bucket.
func upper(bucket int) uint64 {
	shift := max(bucket>>histogramBits-1, 0)
	return uint64(bucket-shift<<histogramBits+1)<<shift - 1
}

func (h *histogram) add(latency time.Duration) {
	h.counts[bucketOf(uint64(max(latency, 0)))]++
	h.total++
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// millis is the latency at or below which share of all lie, in milliseconds; 0 if there are none.
func (h *histogram) millis(share float64) float64 {
	rank := max(uint64(share*float64(h.total)+0.5), 1)
	seen := uint64(0)
	for bucket, n := range h.counts {
		if seen += n; n > 0 && seen >= rank {
			return float64(upper(bucket)) / 1e6
		}
	}
	return 0
}
