package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// DescribeClientQuotas, AlterClientQuotas: v0-1 (KIP-546)
//
// Behaviour:
//   - entities: user, client-id, both, or ip; a name that is absent is the default
//   - all bounds are enforced: see quotas.go, and worktime.go for request_percentage
//   - every entry of an alteration stands for itself
//   - strict leaves out entities that name types which the filter does not

// Kinds of match of a filter.
const (
	matchExact   = 0
	matchDefault = 1
	matchAny     = 2
)

func (s *session) describeClientQuotas(req *kmsg.DescribeClientQuotasRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeClientQuotasResponse)
	filters := map[string]kmsg.DescribeClientQuotasRequestComponent{}
	for _, c := range req.Components {
		if err := checkFilter(c, filters); err != nil {
			resp.ErrorCode, resp.ErrorMessage = s.fail(err), message(err)
			return resp
		}
		filters[c.EntityType] = c
	}
	resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{}
	for entity, bounds := range s.Metadata.Image().Quotas().All() {
		parts := quotaParts(entity)
		if !quotaMatches(parts, filters, req.Strict) {
			continue
		}
		entry := kmsg.NewDescribeClientQuotasResponseEntry()
		for _, part := range parts {
			answer := kmsg.NewDescribeClientQuotasResponseEntryEntity()
			answer.Type, answer.Name = part.kind, part.text()
			entry.Entity = append(entry.Entity, answer)
		}
		for _, b := range bounds {
			value := kmsg.NewDescribeClientQuotasResponseEntryValue()
			value.Key, value.Value = b.Key, b.Value
			entry.Values = append(entry.Values, value)
		}
		resp.Entries = append(resp.Entries, entry)
	}
	return resp
}

func checkFilter(c kmsg.DescribeClientQuotasRequestComponent, seen map[string]kmsg.DescribeClientQuotasRequestComponent) error {
	_, twice := seen[c.EntityType]
	_, ip := seen[metadata.QuotaIP]
	switch {
	case c.EntityType == "":
		return broker.Errorf(broker.InvalidRequest, "an entity type is empty")
	case !slices.Contains([]string{metadata.QuotaUser, metadata.QuotaClientID, metadata.QuotaIP}, c.EntityType):
		return broker.Errorf(broker.UnsupportedVersion, "entity type %q is none of user, client-id and ip", c.EntityType)
	case len(seen) > 0 && !twice && (ip || c.EntityType == metadata.QuotaIP):
		return broker.Errorf(broker.InvalidRequest, "an address has no quotas together with a user or a client id")
	case twice:
		return broker.Errorf(broker.InvalidRequest, "entity type %s is in the filter twice", c.EntityType)
	case c.MatchType < matchExact || c.MatchType > matchAny:
		return broker.Errorf(broker.InvalidRequest, "match type %d is none of 0, 1 and 2", c.MatchType)
	case c.MatchType == matchExact && c.Match == nil:
		return broker.Errorf(broker.InvalidRequest, "an exact match of %s needs a name", c.EntityType)
	}
	return nil
}

// quotaPart is one part of an entity that is given.
type quotaPart struct {
	kind string
	name metadata.QuotaName
}

func (p quotaPart) text() *string {
	if p.name.Default {
		return nil
	}
	return &p.name.Name
}

func quotaParts(e metadata.QuotaEntity) []quotaPart {
	all := []quotaPart{{metadata.QuotaUser, e.User}, {metadata.QuotaClientID, e.ClientID}, {metadata.QuotaIP, e.IP}}
	return slices.DeleteFunc(all, func(p quotaPart) bool { return !p.name.Given })
}

func quotaMatches(parts []quotaPart, filters map[string]kmsg.DescribeClientQuotasRequestComponent, strict bool) bool {
	matched := 0
	for _, part := range parts {
		c, asked := filters[part.kind]
		switch {
		case !asked && strict:
			return false
		case !asked:
			continue
		case c.MatchType == matchExact && (part.name.Default || part.name.Name != *c.Match), c.MatchType == matchDefault && !part.name.Default:
			return false
		}
		matched++
	}
	return matched == len(filters)
}

func (s *session) alterClientQuotas(ctx context.Context, req *kmsg.AlterClientQuotasRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.AlterClientQuotasResponse)
	ctx, cancel := withTimeout(ctx, adminTimeoutMillis)
	defer cancel()
	for i := range req.Entries {
		asked := &req.Entries[i]
		answer := kmsg.NewAlterClientQuotasResponseEntry()
		for _, part := range asked.Entity {
			entity := kmsg.NewAlterClientQuotasResponseEntryEntity()
			entity.Type, entity.Name = part.Type, part.Name
			answer.Entity = append(answer.Entity, entity)
		}
		request, err := quotaRequest(asked)
		if err == nil {
			request.ValidateOnly = req.ValidateOnly
			if _, err = s.Controller.Submit(ctx, request); err != nil {
				err = timedOut(ctx, err)
			}
		}
		if err != nil {
			answer.ErrorCode, answer.ErrorMessage = s.fail(err), message(err)
		}
		resp.Entries = append(resp.Entries, answer)
	}
	return resp
}

func quotaRequest(asked *kmsg.AlterClientQuotasRequestEntry) (controller.AlterQuota, error) {
	var request controller.AlterQuota
	for _, part := range asked.Entity {
		name := metadata.QuotaName{Given: true, Default: part.Name == nil}
		if part.Name != nil {
			name.Name = *part.Name
		}
		place := &request.Entity.User
		switch part.Type {
		case metadata.QuotaUser:
		case metadata.QuotaClientID:
			place = &request.Entity.ClientID
		case metadata.QuotaIP:
			place = &request.Entity.IP
		default:
			return request, broker.Errorf(broker.InvalidRequest, "entity type %q is none of user, client-id and ip", part.Type)
		}
		if place.Given {
			return request, broker.Errorf(broker.InvalidRequest, "entity type %s is named twice", part.Type)
		}
		*place = name
	}
	for _, op := range asked.Ops {
		if op.Remove {
			request.Remove = append(request.Remove, op.Key)
		} else {
			request.Set = append(request.Set, metadata.QuotaBound{Key: op.Key, Value: op.Value})
		}
	}
	return request, nil
}
