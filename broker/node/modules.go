package node

import (
	"context"
	"iter"
	"sync/atomic"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/delivery"
	"github.com/millrace-io/millrace/broker/metadata"
)

// modulesLog is the one partition of the modules topic, on whichever node leads it; this node must, for now.
type modulesLog struct{ led atomic.Pointer[internalLog] }

var _ delivery.Log = (*modulesLog)(nil)

func (m *modulesLog) lead(log internalLog) { m.led.Store(&log) }
func (m *modulesLog) resign()              { m.led.Store(nil) }

func (m *modulesLog) log() (*internalLog, error) {
	if log := m.led.Load(); log != nil {
		return log, nil
	}
	return nil, broker.Errorf(broker.NotLeaderOrFollower, "this node does not lead topic %s; try again", broker.ModulesTopic)
}

// Append implements delivery.Log.
func (m *modulesLog) Append(ctx context.Context, batches []byte) error {
	log, err := m.log()
	if err != nil {
		return err
	}
	return log.Append(ctx, batches)
}

// Batches implements delivery.Log.
func (m *modulesLog) Batches(ctx context.Context) iter.Seq2[[]byte, error] {
	log, err := m.log()
	if err != nil {
		return func(yield func([]byte, error) bool) { yield(nil, err) }
	}
	return log.Batches(ctx)
}

// referenced lists the modules that some plugin version is made of.
func referenced(image *metadata.Image) []metadata.Digest {
	var digests []metadata.Digest
	for _, v := range image.Plugins() {
		digests = append(digests, v.Given, v.Metered)
	}
	return digests
}
