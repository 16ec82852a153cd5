package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/controller"
	"github.com/millrace-io/millrace/broker/metadata"
)

// AlterConfigs: v0-2
//
// Behaviour:
//   - replaces everything that is set for a topic; IncrementalAlterConfigs is the better question
//   - resources, errors and checks are those of incremental_alter_configs.go

func (s *session) alterConfigs(ctx context.Context, req *kmsg.AlterConfigsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.AlterConfigsResponse)
	ctx, cancel := withTimeout(ctx, adminTimeoutMillis)
	defer cancel()
	seen := make(map[configResource]int, len(req.Resources))
	for i := range req.Resources {
		seen[configResource{req.Resources[i].ResourceType, req.Resources[i].ResourceName}]++
	}
	for i := range req.Resources {
		rr := &req.Resources[i]
		answer := kmsg.NewAlterConfigsResponseResource()
		answer.ResourceType, answer.ResourceName = rr.ResourceType, rr.ResourceName
		resource := configResource{rr.ResourceType, rr.ResourceName}
		request, err := replaceRequest(rr)
		request.ValidateOnly = req.ValidateOnly
		if err = s.alter(ctx, resource, seen[resource] > 1, request, err); err != nil {
			answer.ErrorCode, answer.ErrorMessage = s.fail(err), message(err)
		}
		resp.Resources = append(resp.Resources, answer)
	}
	return resp
}

func replaceRequest(rr *kmsg.AlterConfigsRequestResource) (controller.AlterConfigs, error) {
	request := controller.AlterConfigs{Replace: true, Set: make(map[string]string, len(rr.Configs))}
	for _, c := range rr.Configs {
		if _, twice := request.Set[c.Name]; twice {
			return request, broker.Errorf(broker.InvalidRequest, "config %s is in the request twice", c.Name)
		}
		if c.Value == nil {
			return request, broker.Errorf(broker.InvalidRequest, "config %s has no value", c.Name)
		}
		request.Set[c.Name] = *c.Value
	}
	return request, nil
}

// configResource is what a client names to read or change configs.
type configResource struct {
	kind kmsg.ConfigResourceType
	name string
}

// adminTimeoutMillis bounds an administrative request that brings no time limit of its own.
const adminTimeoutMillis = 30_000

// alter checks the resource that a change of configs names and carries the change to the controller. problem is what was
// found wrong with the change itself.
func (s *session) alter(ctx context.Context, resource configResource, repeated bool, request controller.AlterConfigs, problem error) error {
	if repeated {
		return broker.Errorf(broker.InvalidRequest, "%q is in the request more than once", resource.name)
	}
	if problem != nil {
		return problem
	}
	switch resource.kind {
	case kmsg.ConfigResourceTypeTopic:
		if !s.mayTopic(resource.name) {
			return broker.Errorf(broker.TopicAuthorizationFailed, "no permission to change the configs of topic %q", resource.name)
		}
		request.Resource = metadata.TopicResource(resource.name)
	case kmsg.ConfigResourceTypeGroupConfig:
		if resource.name == "" {
			return broker.Errorf(broker.InvalidRequest, "a group has a name")
		}
		if !s.mayGroup(resource.name) {
			return broker.Errorf(broker.GroupAuthorizationFailed, "no permission to change the configs of group %q", resource.name)
		}
		if err := s.checkGroupLimits(request.Set); err != nil {
			return err
		}
		request.Resource = metadata.GroupResource(resource.name)
	case kmsg.ConfigResourceTypeBroker:
		if !s.mayCluster() {
			return broker.Errorf(broker.ClusterAuthorizationFailed, "no permission to change the configs of brokers")
		}
		return broker.Errorf(broker.InvalidRequest, "a broker's configs are in its file; change them there and start it again")
	default:
		return broker.Errorf(broker.InvalidRequest, "configs of resource type %d cannot be changed", resource.kind)
	}
	_, err := s.Controller.Submit(ctx, request)
	if err != nil {
		return timedOut(ctx, err)
	}
	return nil
}
