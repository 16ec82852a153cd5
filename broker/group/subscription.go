package group

import "encoding/binary"

// consumerProtocol is the protocol type of consumers, whose metadata the broker can read.
const consumerProtocol = "consumer"

// subscriptions returns the topics that the members subscribe to; false if that is not known, because the members are
// no consumers, no protocol is selected, or some metadata is not in the consumers' format.
func (g *Group) subscriptions() (map[string]struct{}, bool) {
	if g.protocolType != consumerProtocol || g.protocol == "" {
		return nil, false
	}
	topics := map[string]struct{}{}
	for _, m := range g.members {
		if !readSubscription(m.metadata(g.protocol), topics) {
			return nil, false
		}
	}
	return topics, true
}

// readSubscription adds the topics of a ConsumerProtocolSubscription (u16 version, u32 count, then u16 length and name
// each; later fields are of no interest). False if b is no such thing.
func readSubscription(b []byte, topics map[string]struct{}) bool {
	const header = 2 + 4
	if len(b) < header {
		return false
	}
	count := binary.BigEndian.Uint32(b[2:])
	b = b[header:]
	for range count {
		if len(b) < 2 {
			return false
		}
		n := int(binary.BigEndian.Uint16(b))
		if len(b) < 2+n {
			return false
		}
		topics[string(b[2:2+n])] = struct{}{}
		b = b[2+n:]
	}
	return true
}
