package controller

import (
	"math"
	"net/netip"
	"slices"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Bounds of the quotas of a cluster.
const (
	quotaNameBytesMax = 1024
	quotaEntitiesMax  = 10_000
)

// AlterQuota sets and removes bounds of one entity. Reply: QuotaAltered.
type AlterQuota struct {
	Entity       metadata.QuotaEntity
	Set          []metadata.QuotaBound
	Remove       []string
	ValidateOnly bool
}

// QuotaAltered says that the bounds are as asked.
type QuotaAltered struct{}

func (AlterQuota) request() {}
func (QuotaAltered) reply() {}

func alterQuota(head *metadata.Image, r AlterQuota) (Decision, error) {
	if err := checkQuotaEntity(r.Entity); err != nil {
		return Decision{}, err
	}
	present := head.Quotas().Of(r.Entity)
	if len(present) == 0 && len(r.Set) > 0 && countQuotas(head) >= quotaEntitiesMax {
		return Decision{}, broker.Errorf(broker.PolicyViolation, "there are quotas for %d entities; remove some first", quotaEntitiesMax)
	}
	var facts []*metadata.Fact
	seen := map[string]bool{}
	for _, b := range r.Set {
		if err := checkQuotaKey(r.Entity, b.Key, seen); err != nil {
			return Decision{}, err
		}
		whole := b.Key != metadata.RequestPercentage && b.Key != metadata.ControllerMutationRate
		if math.IsNaN(b.Value) || b.Value <= 0 || b.Value > math.MaxInt64 || whole && b.Value != math.Trunc(b.Value) {
			return Decision{}, broker.Errorf(broker.InvalidRequest, "%s cannot be %v: it is above 0, and rates are whole", b.Key, b.Value)
		}
		if !slices.Contains(present, b) {
			facts = append(facts, metadata.QuotaFact(r.Entity, b.Key, b.Value))
		}
	}
	for _, key := range r.Remove {
		if err := checkQuotaKey(r.Entity, key, seen); err != nil {
			return Decision{}, err
		}
		if slices.ContainsFunc(present, func(b metadata.QuotaBound) bool { return b.Key == key }) {
			facts = append(facts, metadata.QuotaRemovedFact(r.Entity, key))
		}
	}
	if r.ValidateOnly || len(facts) == 0 {
		return Decision{Reply: QuotaAltered{}}, nil
	}
	entries, err := packOne("the quota", facts...)
	return Decision{Changes: entries, Reply: QuotaAltered{}}, err
}

func countQuotas(head *metadata.Image) int {
	n := 0
	for range head.Quotas().All() {
		n++
	}
	return n
}

func checkQuotaEntity(e metadata.QuotaEntity) error {
	switch {
	case !e.User.Given && !e.ClientID.Given && !e.IP.Given:
		return broker.Errorf(broker.InvalidRequest, "a quota is for a user, a client id, both, or an address")
	case e.IP.Given && (e.User.Given || e.ClientID.Given):
		return broker.Errorf(broker.InvalidRequest, "a quota of an address names no user and no client id")
	}
	for _, name := range [...]metadata.QuotaName{e.User, e.ClientID, e.IP} {
		switch {
		case !name.Given || name.Default:
			continue
		case name.Name == "" || len(name.Name) > quotaNameBytesMax:
			return broker.Errorf(broker.InvalidRequest, "a name has 1 to %d bytes, not %d", quotaNameBytesMax, len(name.Name))
		}
		if err := checkText("the name of a quota's entity", name.Name); err != nil {
			return err
		}
	}
	if e.IP.Given && !e.IP.Default {
		if address, err := netip.ParseAddr(e.IP.Name); err != nil || address.String() != e.IP.Name {
			return broker.Errorf(broker.InvalidRequest, "%q is no address in its usual form", e.IP.Name)
		}
	}
	return nil
}

func checkQuotaKey(e metadata.QuotaEntity, key string, seen map[string]bool) error {
	known := []string{metadata.ProducerByteRate, metadata.ConsumerByteRate, metadata.RequestPercentage, metadata.ControllerMutationRate}
	if e.IP.Given {
		known = []string{metadata.ConnectionCreationRate}
	}
	if !slices.Contains(known, key) {
		return broker.Errorf(broker.InvalidRequest, "%q is none of the bounds that it can have: %v", key, known)
	}
	if seen[key] {
		return broker.Errorf(broker.InvalidRequest, "%s is in the request twice", key)
	}
	seen[key] = true
	return nil
}
