package kafka

import (
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Quotas bound what clients move per second (KIP-13, KIP-124, KIP-219, KIP-599, KIP-612). A bound is a bucket that fills at its
// rate up to one second's worth. What is over is answered all the same, with the time until the bucket is level again in
// ThrottleTimeMs, and then the connection is not read for that time (T14): a client that waits by itself notices nothing,
// and one that does not is held.
const (
	quotaBurst       = time.Second
	throttleMax      = 30 * time.Second // what a client is held at a time
	fetchQuotaWindow = 10 * time.Second // of a bound: more bytes are not sent in one answer
	quotaBucketsMax  = 10_000
)

// bucketKey is a bound and who shares it.
type bucketKey struct {
	key   string
	share metadata.QuotaEntity
}

// bucket holds what may still be used, below zero what was used too much.
type bucket struct {
	level float64
	at    time.Time
}

// buckets are the bounds in use. It is safe for concurrent use.
type buckets struct {
	mu sync.Mutex
	of map[bucketKey]bucket // guarded by mu; at most quotaBucketsMax
}

// take uses n of a bound of so many a second, and returns how long until it is level again.
func (b *buckets) take(key bucketKey, rate, n float64, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	room := rate * quotaBurst.Seconds()
	held, known := b.of[key]
	if !known {
		b.makeRoom(now)
		held = bucket{level: room, at: now}
	}
	held.level = min(room, held.level+rate*now.Sub(held.at).Seconds()) - n
	held.at = now
	if b.of == nil {
		b.of = map[bucketKey]bucket{}
	}
	b.of[key] = held
	if held.level >= 0 {
		return 0
	}
	return min(time.Duration(-held.level/rate*float64(time.Second)), throttleMax)
}

// makeRoom forgets who has used nothing for as long as anybody is held, or, if that is nobody, everybody. Under mu.
func (b *buckets) makeRoom(now time.Time) {
	if len(b.of) < quotaBucketsMax {
		return
	}
	for key, held := range b.of {
		if now.Sub(held.at) > throttleMax {
			delete(b.of, key)
		}
	}
	if len(b.of) >= quotaBucketsMax {
		clear(b.of)
	}
}

// quotaUser is the user whom quotas know the client as: the principal without its kind.
func (s *session) quotaUser() string { return strings.TrimPrefix(s.principal, "User:") }

// use counts bytes, or whatever is bound, against a bound of the client at hand and returns how long it is throttled; nothing
// where there is no such bound.
func (s *session) use(key string, n float64) time.Duration {
	quotas := s.Metadata.Image().Quotas()
	if quotas == nil {
		return 0
	}
	rate, share, bound := quotas.Bound(s.quotaUser(), s.client, key)
	if !bound {
		return 0
	}
	return s.buckets.take(bucketKey{key, share}, rate, n, time.Now())
}

// mutates counts partitions that the controller is to make or remove against the client's bound. Where that is used up
// already, strict versions, which know the error, are refused and use nothing (KIP-599); others are told to wait.
func (s *session) mutates(partitions int, strict bool) error {
	if strict {
		if wait := s.use(metadata.ControllerMutationRate, 0); wait > 0 {
			s.throttle = max(s.throttle, wait)
			return broker.Errorf(broker.ThrottlingQuotaExceeded, "the client has changed more partitions than its quota has room for; ask again in %v", wait)
		}
	}
	s.throttle = max(s.throttle, s.use(metadata.ControllerMutationRate, float64(partitions)))
	return nil
}

// fetchQuotaRoom is how many bytes of records one answer may have under the client's bound.
func (s *session) fetchQuotaRoom() int {
	quotas := s.Metadata.Image().Quotas()
	if quotas == nil {
		return s.Limits.FetchBytesMax
	}
	rate, _, bound := quotas.Bound(s.quotaUser(), s.client, metadata.ConsumerByteRate)
	if !bound {
		return s.Limits.FetchBytesMax
	}
	return int(min(rate*fetchQuotaWindow.Seconds(), float64(s.Limits.FetchBytesMax)))
}

// hold leaves the connection unread for as long as the client is throttled, or until the server ends.
func (s *session) hold() {
	if s.throttle <= 0 {
		return
	}
	s.Metrics.Throttled(s.throttle)
	sleep(s.parking, s.throttle)
	s.throttle = 0
}

// connectionDelay counts a connection against its address's bound. One too many is held and then closed.
func (s *Server) connectionDelay(ip string) time.Duration {
	quotas := s.Metadata.Image().Quotas()
	if quotas == nil {
		return 0
	}
	rate, bound := quotas.ConnectionRate(ip)
	if !bound {
		return 0
	}
	share := metadata.QuotaEntity{IP: metadata.QuotaName{Given: true, Name: ip}}
	return s.buckets.take(bucketKey{metadata.ConnectionCreationRate, share}, rate, 1, time.Now())
}

// throttleMillis is a time as clients are told it, rounded up.
func throttleMillis(d time.Duration) int32 {
	return int32((d + time.Millisecond - 1) / time.Millisecond)
}
