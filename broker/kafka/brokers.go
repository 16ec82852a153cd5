package kafka

import (
	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// address is a broker as clients of one listener reach it (T22).
type address struct {
	NodeID int32
	Host   string
	Port   int32
	Rack   *string
}

// brokers returns the live brokers that clients of this session's listener can reach.
func (s *session) brokers(img *metadata.Image) []address {
	var all []address
	for _, registration := range img.Brokers() {
		if a, ok := s.addressOf(registration); ok && !registration.Fenced {
			all = append(all, a)
		}
	}
	return all
}

// brokerAddress returns a live broker's address for this session's listener.
func (s *session) brokerAddress(img *metadata.Image, node broker.NodeID) (address, bool) {
	registration, ok := img.Broker(node)
	if !ok || registration.Fenced {
		return address{}, false
	}
	return s.addressOf(registration)
}

// addressOf returns the address of a broker, live or not, for this session's listener.
func (s *session) addressOf(registration *metadata.Registration) (address, bool) {
	a := address{NodeID: int32(registration.Node)}
	if registration.Rack != "" {
		a.Rack = &registration.Rack
	}
	if registration.Node == s.Node && s.listener.AdvertisedHost != "" {
		a.Host, a.Port = s.listener.AdvertisedHost, s.listener.AdvertisedPort
		return a, true
	}
	for _, endpoint := range registration.Endpoints {
		if endpoint.Listener == s.listener.Name {
			a.Host, a.Port = endpoint.Host, endpoint.Port
			return a, true
		}
	}
	return address{}, false
}

// leaderHint is the leader that a client should have asked, as this node knows it (KIP-951).
type leaderHint struct {
	LeaderID    int32
	LeaderEpoch int32
}

// leaderHints collects the hints of one response and the addresses that go with them.
type leaderHints struct {
	session *session
	image   *metadata.Image
	seen    []address
}

// hint returns the leader of a partition if code says that the client asked the wrong broker and a live one is known.
func (l *leaderHints) hint(code broker.Code, t target, partition int32) (leaderHint, bool) {
	if code != broker.NotLeaderOrFollower && code != broker.FencedLeaderEpoch || t.topic == nil {
		return leaderHint{}, false
	}
	state, ok := l.image.Partition(t.partition(partition))
	if !ok {
		return leaderHint{}, false
	}
	leader, ok := l.session.brokerAddress(l.image, state.Leader)
	if !ok {
		return leaderHint{}, false
	}
	for _, a := range l.seen {
		if a.NodeID == leader.NodeID {
			return leaderHint{LeaderID: leader.NodeID, LeaderEpoch: int32(state.LeaderEpoch)}, true
		}
	}
	l.seen = append(l.seen, leader)
	return leaderHint{LeaderID: leader.NodeID, LeaderEpoch: int32(state.LeaderEpoch)}, true
}

func (l *leaderHints) brokers() []address { return l.seen }
