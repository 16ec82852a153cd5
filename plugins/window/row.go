package window

import "math"

// History answers for one judge key from its files: .verdicts for repeats, .ids for timestamps.
type History interface {
	// RepeatAt returns the repeat at offset o.
	RepeatAt(o int64) (Repeat, bool)
	// TimestampAt returns the timestamp of the sighting at offset o.
	TimestampAt(o int64) int64
}

// Row is what a decision row adds to a judge key: from where sightings count, and how old they may be.
type Row struct {
	Geometry Geometry
	Origin   int64 // oldest offset whose sightings count
	Start    int64 // S: start of the stretch, of rows with one judge key, that holds the records asked about
	// WithinMillis bounds how much older than a record the one it repeats may be; 0 = no bound.
	WithinMillis int64
}

// Floor is T: the lowest offset whose sighting counts against o.
func (r Row) Floor(o int64) int64 { return max(r.Origin, r.Geometry.Floor(o)) }

// NotBefore is the oldest timestamp that counts against a record whose timestamp is at.
func (r Row) NotBefore(at int64) int64 {
	if r.WithinMillis <= 0 || at < math.MinInt64+r.WithinMillis {
		return math.MinInt64
	}
	return at - r.WithinMillis
}

// Repeats tells whether the sighting at `at.Offset` repeats one of its own stretch. For the stretches before it ask
// RepeatsBefore where Floor is below Start.
func (r Row) Repeats(at Repeat, h History) bool {
	bound := max(r.Start, r.Floor(at.Offset))
	k := at.Offset - int64(at.Nearest)
	if k < bound || at.Nearest == 0 {
		return false
	}
	if r.WithinMillis <= 0 {
		return true
	}
	notBefore := r.NotBefore(h.TimestampAt(at.Offset))
	for k >= bound {
		if h.TimestampAt(k) >= notBefore {
			return true
		}
		older, ok := h.RepeatAt(k)
		if !ok || older.Newer == 0 {
			return false
		}
		k -= int64(older.Newer)
	}
	return false
}

// RepeatsBefore tells whether the sighting repeats one of a stretch before its own. earlier holds the sightings of
// those stretches, each with the ids that its own key gave inside it, from Floor(Start) to Start.
func (r Row) RepeatsBefore(x Sighting, earlier *Sightings) bool {
	return earlier.Holds(x.Print, r.Floor(x.Offset), r.NotBefore(x.Timestamp))
}
