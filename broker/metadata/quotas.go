package metadata

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker/metadata/metadatapb"
)

// The types of a quota's entity, as Kafka names them.
const (
	QuotaUser     = "user"
	QuotaClientID = "client-id"
	QuotaIP       = "ip"
)

// What quotas bound.
const (
	ProducerByteRate       = "producer_byte_rate"
	ConsumerByteRate       = "consumer_byte_rate"
	RequestPercentage      = "request_percentage"
	ControllerMutationRate = "controller_mutation_rate"
	ConnectionCreationRate = "connection_creation_rate"
)

// QuotaName is one part of what a quota is for: nothing, everybody who has no quota of their own, or one by name.
type QuotaName struct {
	Given, Default bool
	Name           string
}

// QuotaEntity is whom a quota is for: a user, a client id, both, or an address.
type QuotaEntity struct{ User, ClientID, IP QuotaName }

// QuotaBound is one value of an entity.
type QuotaBound struct {
	Key   string
	Value float64
}

// Quotas are all bounds of the cluster. It is immutable, and nil is none.
type Quotas struct {
	of map[QuotaEntity][]QuotaBound // sorted by key
}

// Quotas returns what clients are bound by.
func (m *Image) Quotas() *Quotas { return m.quotas }

// Of returns an entity's bounds, by key.
func (q *Quotas) Of(e QuotaEntity) []QuotaBound {
	if q == nil {
		return nil
	}
	return q.of[e]
}

// All yields every entity with its bounds, in order.
func (q *Quotas) All() iter.Seq2[QuotaEntity, []QuotaBound] {
	return func(yield func(QuotaEntity, []QuotaBound) bool) {
		if q == nil {
			return
		}
		for _, e := range slices.SortedFunc(maps.Keys(q.of), compareQuotaEntity) {
			if !yield(e, q.of[e]) {
				return
			}
		}
	}
}

func compareQuotaEntity(a, b QuotaEntity) int {
	return cmp.Or(compareQuotaName(a.User, b.User), compareQuotaName(a.ClientID, b.ClientID), compareQuotaName(a.IP, b.IP))
}

func compareQuotaName(a, b QuotaName) int {
	rank := func(n QuotaName) int {
		switch {
		case !n.Given:
			return 0
		case n.Default:
			return 1
		}
		return 2
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
}

// Bound returns the bound of a client and whom it is shared with: those that the parts of share name. Kafka's order
// holds: the more a quota says of the user, then of the client id, the earlier it is asked. Everybody under a default has
// the bound to themselves.
func (q *Quotas) Bound(user, clientID, key string) (value float64, share QuotaEntity, found bool) {
	if q == nil {
		return 0, share, false
	}
	named := func(name string) QuotaName { return QuotaName{Given: true, Name: name} }
	everyone, none := QuotaName{Given: true, Default: true}, QuotaName{}
	for _, e := range [...]QuotaEntity{
		{User: named(user), ClientID: named(clientID)}, {User: named(user), ClientID: everyone}, {User: named(user)},
		{User: everyone, ClientID: named(clientID)}, {User: everyone, ClientID: everyone}, {User: everyone},
		{User: none, ClientID: named(clientID)}, {User: none, ClientID: everyone},
	} {
		if value, found = q.value(e, key); !found {
			continue
		}
		if e.User.Given {
			share.User = named(user)
		}
		if e.ClientID.Given {
			share.ClientID = named(clientID)
		}
		return value, share, true
	}
	return 0, share, false
}

// ConnectionRate returns how many connections a second an address may make.
func (q *Quotas) ConnectionRate(ip string) (value float64, found bool) {
	if q == nil {
		return 0, false
	}
	if value, found = q.value(QuotaEntity{IP: QuotaName{Given: true, Name: ip}}, ConnectionCreationRate); found {
		return value, true
	}
	return q.value(QuotaEntity{IP: QuotaName{Given: true, Default: true}}, ConnectionCreationRate)
}

func (q *Quotas) value(e QuotaEntity, key string) (float64, bool) {
	for _, b := range q.of[e] {
		if b.Key == key {
			return b.Value, true
		}
	}
	return 0, false
}

// with returns the quotas with one bound set, or removed where value is nil.
func (q *Quotas) with(e QuotaEntity, key string, value *float64) *Quotas {
	next := &Quotas{of: map[QuotaEntity][]QuotaBound{}}
	if q != nil {
		maps.Copy(next.of, q.of)
	}
	bounds := slices.DeleteFunc(slices.Clone(next.of[e]), func(b QuotaBound) bool { return b.Key == key })
	if value != nil {
		bounds = append(bounds, QuotaBound{Key: key, Value: *value})
		slices.SortFunc(bounds, func(a, b QuotaBound) int { return cmp.Compare(a.Key, b.Key) })
	}
	if next.of[e] = bounds; len(bounds) == 0 {
		delete(next.of, e)
	}
	if len(next.of) == 0 {
		return nil
	}
	return next
}

// QuotaFact sets one bound.
func QuotaFact(e QuotaEntity, key string, value float64) *Fact { return quotaFact(e, key, &value) }

// QuotaRemovedFact removes one bound.
func QuotaRemovedFact(e QuotaEntity, key string) *Fact { return quotaFact(e, key, nil) }

func quotaFact(e QuotaEntity, key string, value *float64) *Fact {
	f := &metadatapb.Quota{Key: key, Value: value}
	for _, part := range [...]struct {
		kind string
		name QuotaName
	}{{QuotaClientID, e.ClientID}, {QuotaIP, e.IP}, {QuotaUser, e.User}} {
		if !part.name.Given {
			continue
		}
		entity := &metadatapb.QuotaEntity{Type: part.kind}
		if !part.name.Default {
			entity.Name = proto.String(part.name.Name)
		}
		f.Entity = append(f.Entity, entity)
	}
	return &Fact{Kind: &metadatapb.Fact_Quota{Quota: f}}
}

func (d *draft) quota(f *metadatapb.Quota) error {
	var e QuotaEntity
	for _, part := range f.GetEntity() {
		name := QuotaName{Given: true, Default: part.Name == nil, Name: part.GetName()}
		switch part.GetType() {
		case QuotaUser:
			e.User = name
		case QuotaClientID:
			e.ClientID = name
		case QuotaIP:
			e.IP = name
		default:
			return fmt.Errorf("%w: a quota of %q", ErrUnknownFact, part.GetType())
		}
	}
	if f.Value != nil && (math.IsNaN(f.GetValue()) || math.IsInf(f.GetValue(), 0)) {
		return fmt.Errorf("a quota of %v", f.GetValue())
	}
	d.next.quotas = d.next.quotas.with(e, f.GetKey(), f.Value)
	d.changes.Cluster = true
	return nil
}
