package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// DescribeCluster: v0-2
//
// Behaviour:
//   - brokers with the address of the listener that the question came in on (T22); this node names itself as the
//     controller and forwards what it is then asked (T21)
//   - what the principal may do with the cluster, if asked (KIP-430)
//   - v1: endpoints of brokers only: for those of controllers there is no listener that speaks Kafka; v2: fenced brokers,
//     marked, if they are asked for

// Codes of KIP-919.
const (
	mismatchedEndpointType  broker.Code = 114
	unsupportedEndpointType broker.Code = 115
)

// The endpoint types of KIP-919.
const (
	endpointBrokers     = 1
	endpointControllers = 2
)

func (s *session) describeCluster(req *kmsg.DescribeClusterRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeClusterResponse)
	if req.Version >= 1 && req.EndpointType != endpointBrokers {
		err := broker.Errorf(unsupportedEndpointType, "there is no endpoint type %d", req.EndpointType)
		if req.EndpointType == endpointControllers {
			err = broker.Errorf(mismatchedEndpointType, "this is a listener of brokers, not of controllers")
		}
		resp.ErrorCode, resp.ErrorMessage = s.fail(err), message(err)
		return resp
	}
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = s.authorizedOnCluster()
	}
	img := s.Metadata.Image()
	resp.ClusterID, resp.ControllerID = img.Cluster().ID.String(), int32(s.Node)
	for _, registration := range img.Brokers() {
		a, reachable := s.addressOf(registration)
		if !reachable || registration.Fenced && !req.IncludeFencedBrokers {
			continue
		}
		b := kmsg.NewDescribeClusterResponseBroker()
		b.NodeID, b.Host, b.Port, b.Rack, b.IsFenced = a.NodeID, a.Host, a.Port, a.Rack, registration.Fenced
		resp.Brokers = append(resp.Brokers, b)
	}
	return resp
}
