package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// requestThrottleMax is what a client is held at a time for the work that its requests make (Kafka's window): members of groups
// that are held longer would lose their place. What it has used too much is not forgotten, it is held again at the next request.
const requestThrottleMax = time.Second

// worktime measures how long a session's goroutine works on requests: decodes, checks, submits and reads, and answers. While it
// waits for somebody else it stands still: for the controller, the group coordinator, records to come, memory, the
// gate, a slow client. It runs only where the client's time is bounded (request_percentage), and looks at no clock otherwise.
type worktime struct {
	on    bool
	since time.Time     // zero: it stands still
	spent time.Duration // and not yet counted against the bound
}

func (w *worktime) start() {
	if w.on {
		w.since = time.Now()
	}
}

// stop ends what start began. Waits may lie inside each other: where it stands still already, nothing is added.
func (w *worktime) stop() {
	if w.on && !w.since.IsZero() {
		w.spent += time.Since(w.since)
		w.since = time.Time{}
	}
}

// timed reports whether the time of the client at hand is bounded. What proves who it is does not count.
func (s *session) timed(h header) bool {
	if !s.work.on || beforeAuthentication(h.key) {
		return false
	}
	_, _, bound := s.Metadata.Image().Quotas().Bound(s.quotaUser(), s.client, metadata.RequestPercentage)
	return bound
}

// chargeWork stops the clock and counts the work so far against the client's bound. The bound is a percentage of one
// processor's time. What follows, encoding the answer, counts with the next request.
func (s *session) chargeWork() {
	if !s.work.on {
		return
	}
	s.work.stop()
	percentSeconds := 100 * s.work.spent.Seconds()
	s.work.spent = 0
	s.throttle = max(s.throttle, min(s.use(metadata.RequestPercentage, percentSeconds), requestThrottleMax))
}

// tellThrottle writes into an answer how long the client is throttled.
func (s *session) tellThrottle(response kmsg.Response) {
	if tells, can := response.(kmsg.SetThrottleResponse); can && s.throttle > 0 {
		tells.SetThrottle(throttleMillis(s.throttle))
	}
}

// awaitedController is the controller as one session asks it: the wait is none of the session's work.
type awaitedController struct{ session *session }

func (c awaitedController) Submit(ctx context.Context, request controller.Request) (controller.Reply, error) {
	c.session.work.stop()
	defer c.session.work.start()
	return c.session.Server.Controller.Submit(ctx, request)
}
