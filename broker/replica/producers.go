package replica

import "github.com/millrace-io/millrace/broker/producer"

// Producers lists the producer ids that the leader remembers. Errors carry NotLeaderOrFollower or StorageError.
func (r *Replica) Producers() (active []producer.Active, err error) {
	err = errClosed
	r.do(func() {
		o := &r.owner
		switch {
		case o.failed != nil:
			err = r.storageError(o.failed)
		case o.leader == nil:
			err = r.notLeader()
		default:
			active, err = o.producers.Active(), nil
		}
	})
	return active, err
}
