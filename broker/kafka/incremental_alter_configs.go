package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
)

// IncrementalAlterConfigs: v0-1
//
// Behaviour:
//   - sets and deletes configs of topics, appends to and subtracts from those that are lists; each resource is one change
//   - values are checked against the table of metadata; another min.insync.replicas clears the ELRs in the same entry
//     (RC15); compaction is refused under a chain with unique (H11) and for dead letters
//   - groups have the configs of consumer groups; this broker's file limits their values
//   - views are POLICY_VIOLATION; of an internal topic only min.insync.replicas may be changed; brokers and the rest are
//     INVALID_REQUEST, as is a resource or a config that is named twice

func (s *session) incrementalAlterConfigs(ctx context.Context, req *kmsg.IncrementalAlterConfigsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
	ctx, cancel := withTimeout(ctx, adminTimeoutMillis)
	defer cancel()
	seen := make(map[configResource]int, len(req.Resources))
	for i := range req.Resources {
		seen[configResource{req.Resources[i].ResourceType, req.Resources[i].ResourceName}]++
	}
	for i := range req.Resources {
		rr := &req.Resources[i]
		answer := kmsg.NewIncrementalAlterConfigsResponseResource()
		answer.ResourceType, answer.ResourceName = rr.ResourceType, rr.ResourceName
		resource := configResource{rr.ResourceType, rr.ResourceName}
		request, err := incrementalRequest(rr)
		request.ValidateOnly = req.ValidateOnly
		if err = s.alter(ctx, resource, seen[resource] > 1, request, err); err != nil {
			answer.ErrorCode, answer.ErrorMessage = s.fail(err), message(err)
		}
		resp.Resources = append(resp.Resources, answer)
	}
	return resp
}

func incrementalRequest(rr *kmsg.IncrementalAlterConfigsRequestResource) (controller.AlterConfigs, error) {
	request := controller.AlterConfigs{Set: map[string]string{}, Append: map[string]string{}, Subtract: map[string]string{}}
	seen := make(map[string]bool, len(rr.Configs))
	for _, c := range rr.Configs {
		if seen[c.Name] {
			return request, broker.Errorf(broker.InvalidRequest, "config %s is in the request twice", c.Name)
		}
		seen[c.Name] = true
		if c.Value == nil && c.Op != kmsg.IncrementalAlterConfigOpDelete {
			return request, broker.Errorf(broker.InvalidRequest, "config %s has no value", c.Name)
		}
		switch c.Op {
		case kmsg.IncrementalAlterConfigOpSet:
			request.Set[c.Name] = *c.Value
		case kmsg.IncrementalAlterConfigOpDelete:
			request.Remove = append(request.Remove, c.Name)
		case kmsg.IncrementalAlterConfigOpAppend:
			request.Append[c.Name] = *c.Value
		case kmsg.IncrementalAlterConfigOpSubtract:
			request.Subtract[c.Name] = *c.Value
		default:
			return request, broker.Errorf(broker.InvalidRequest, "operation %d on config %s is not known", c.Op, c.Name)
		}
	}
	return request, nil
}
