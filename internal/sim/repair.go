package sim

import (
	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/internal/mutant"
)

// fail takes a replica out of service: its bytes are damaged from an offset on. The controller hears of it with the next
// heartbeat (RH24); nothing is cut before the replica has a new identity, under which nothing was acknowledged (RC2).
func (r *replicaOwner) fail(at broker.Offset) {
	p := r.p
	p.world().note("node %d finds %s damaged at %d", p.node(), p.world().name(r.tp), at)
	p.repairs[r.tp] = at
	if mutant.Is(mutant.NoNewReplicaID) && r.leader == nil {
		img := r.img
		r.renew(r.id)
		r.onImage(img)
		return
	}
	r.resign()
	r.failed = true
}

// failedReplicas is what heartbeats carry.
func (p *process) failedReplicas() []controller.ReplicaRef {
	var failed []controller.ReplicaRef
	for _, tp := range p.order {
		if r := p.replicas[tp]; r.failed {
			failed = append(failed, controller.ReplicaRef{TopicPartition: tp, ID: r.id})
		}
	}
	return failed
}

// renew takes a new identity: first the cut that it was asked for, then its name.
func (r *replicaOwner) renew(id broker.ReplicaID) {
	p := r.p
	p.world().note("node %d: replica %d of %s becomes %d", p.node(), r.id, p.world().name(r.tp), id)
	r.resign()
	if at, ok := p.repairs[r.tp]; ok {
		delete(p.repairs, r.tp)
		at = max(at, r.log.start)
		r.truncate(min(r.log.end, at))
		r.log.file.cut(at) // what lies damaged behind the end
	}
	r.log.file.setID(id)
	r.id, r.failed = id, false
}
