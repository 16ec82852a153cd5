package netns

import (
	"math/rand/v2"
	"time"
)

// Link is one direction between two hosts. The zero value passes everything at once.
type Link struct {
	Cut       bool
	Loss      float64 // share of packets that are lost
	Double    float64 // share that arrives twice
	Damage    float64 // share that arrives with a flipped bit
	Delay     time.Duration
	Jitter    time.Duration // added at random, so packets overtake one another
	RateBytes int64         // a second; 0: no limit
	SizeMax   int           // longer packets are lost without a word; 0: no limit
}

// queueTime is how long a packet may wait for a slow link before it is dropped.
const queueTime = 400 * time.Millisecond

// pass is what becomes of one packet: when its copies arrive.
type pass struct {
	at     [2]time.Time
	copies int
	damage bool
}

// wire is a link with its state. Its owner is the router.
type wire struct {
	Link
	free time.Time // when the slow link has sent what it has taken
}

func (w *wire) take(now time.Time, size int, random *rand.Rand) (p pass) {
	if w.Cut || w.SizeMax > 0 && size > w.SizeMax || random.Float64() < w.Loss {
		return p
	}
	at := now
	if w.RateBytes > 0 {
		at = now
		if w.free.After(now) {
			at = w.free
		}
		if at.Sub(now) > queueTime {
			return p
		}
		at = at.Add(time.Duration(int64(size) * int64(time.Second) / w.RateBytes))
		w.free = at
	}
	p.copies = 1
	if random.Float64() < w.Double {
		p.copies = 2
	}
	for i := range p.copies {
		p.at[i] = at.Add(w.Delay)
		if w.Jitter > 0 {
			p.at[i] = p.at[i].Add(time.Duration(random.Int64N(int64(w.Jitter))))
		}
	}
	p.damage = random.Float64() < w.Damage
	return p
}
