package bubble

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/internal/vfs"
)

// failSync lets one of the next syncs fail, and starts the next process later. The process must end by itself (R13). What
// the sync was of can still be read unless the power goes as well, but is no more durable than before.
func (r *run) failSync(m *machine, random *rand.Rand, length time.Duration) {
	syncs, powerToo, keeps := 1+random.IntN(50), random.IntN(2) == 0, rand.New(rand.NewPCG(random.Uint64(), 2))
	if !r.take(m) {
		return
	}
	r.note("the sync of node %d in %d fails, power lost as well: %t, back after %s", m.id, syncs, powerToo, length)
	var left atomic.Int64
	left.Store(int64(syncs))
	m.disk.Inject(func(op vfs.Op) *vfs.Fault {
		if op.Kind != vfs.OpSync && op.Kind != vfs.OpSyncDir && op.Kind != vfs.OpSyncAll || left.Add(-1) > 0 {
			return nil
		}
		return &vfs.Fault{Err: errors.New("input/output error")}
	})
	r.tasks.Go("failed sync", func(ctx context.Context) error {
		select {
		case <-m.life.done:
		case <-time.After(2 * lengthMax):
			if left.Load() <= 0 {
				r.wrong("failed-sync", "node %d goes on after a sync that failed", m.id)
			}
		}
		r.cluster.kill(m)
		<-m.life.done
		m.disk.Inject(nil)
		if powerToo {
			m.losePower(keeps)
		}
		rest(ctx, length)
		r.revive(m)
		return nil
	})
}

// fill leaves a disk no space for a while. The process must go on.
func (r *run) fill(m *machine, length time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down[m] {
		return
	}
	r.note("no space on the disk of node %d for %s", m.id, length)
	disk := m.disk // a loss of power leaves another, which has space
	disk.Fill()
	r.after(length, func() { disk.SetSpace(0) })
}

// rot kills a process and flips a bit of the end of one of its logs. There may be a single such bit in a run: what two nodes lose of the
// same record at once is lost.
func (r *run) rot(m *machine, random *rand.Rand, length time.Duration) {
	at, bit, which := random.Float64(), random.IntN(8), random.Int32N(r.plan.partitions)
	if r.rotted || !r.take(m) {
		return
	}
	r.rotted = true
	r.cluster.kill(m)
	where, err := flip(m.disk, path.Join(dataDir, "topics", broker.TopicID(r.topicID).Hex(), fmt.Sprint(which)), at, bit)
	if err != nil {
		r.wrong("run", "flip a bit of node %d: %v", m.id, err)
	}
	r.note("a bit of node %d is another: %s, back after %s", m.id, where, length)
	r.after(length, func() { r.revive(m) })
}

// flip changes a bit of the newest segment of a partition's log, at a share of its bytes: older ones are looked at when they
// are read, which is for the tests of stores. A partition that has none is left alone.
func flip(disk *vfs.Mem, dir string, share float64, bit int) (where string, err error) {
	names, err := disk.List(dir)
	if err != nil {
		return "", err
	}
	newest := ""
	for _, name := range names { // in the order of their base offsets
		if path.Ext(name) == ".log" {
			newest = path.Join(dir, name)
		}
	}
	if newest == "" {
		return "nothing", nil
	}
	content, err := readFile(disk, newest)
	if err != nil || len(content) == 0 {
		return "nothing", err
	}
	at := int(share * float64(len(content)))
	file, err := disk.Open(newest)
	if err != nil {
		return "", err
	}
	_, err = file.WriteAt([]byte{content[at] ^ 1<<bit}, int64(at))
	return fmt.Sprintf("bit %d at %d of %d of %s", bit, at, len(content), path.Base(newest)), errors.Join(err, file.Sync(), file.Close())
}
