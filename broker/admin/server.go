package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"github.com/rs/zerolog"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/adminapi/adminapiconnect"
)

// messageBytesMax bounds one request message; modules come in chunks below it.
const messageBytesMax = 1 << 20

// Config is what a server needs.
type Config struct {
	Node     broker.NodeID
	Version  string
	Metadata Metadata
	Groups   Groups
	Chains   Chains
	Nodes    Nodes
	Plugins  Plugins
	// NodeConfigs are what the node was started with, under Kafka's names where Kafka has one.
	NodeConfigs []NodeConfig
	// Machine tells of the disk and the certificates of the node.
	Machine   func() Machine
	Logger    zerolog.Logger
	NowMs     func() int64
	Quorum    Quorum
	Followers Followers
}

// NodeConfig is one configured value of the node.
type NodeConfig struct{ Name, Value string }

// Machine is what a node stands on.
type Machine struct {
	DiskFreeBytes, DiskTotalBytes uint64
	ReadOnly                      bool // records from clients are refused for want of space
	Certificates                  []Certificate
	NotRenewed                    []string // why files that were put in place of others are not used
}

// Certificate is one that a node shows or trusts.
type Certificate struct {
	File    string
	Expires time.Time
	Renew   string // what to do before it does
}

// Server implements every service of the admin API. It is safe for concurrent use.
type Server struct {
	Config
}

// New returns a server.
func New(config Config) *Server { return &Server{config} }

// Register adds the services to a mux.
func (s *Server) Register(mux *http.ServeMux) {
	options := []connect.HandlerOption{connect.WithReadMaxBytes(messageBytesMax), connect.WithInterceptors(s.translate())}
	mux.Handle(adminapiconnect.NewClusterServiceHandler(s, options...))
	mux.Handle(adminapiconnect.NewTopicServiceHandler(s, options...))
	mux.Handle(adminapiconnect.NewGroupServiceHandler(s, options...))
	mux.Handle(adminapiconnect.NewPluginServiceHandler(s, options...))
	mux.Handle(adminapiconnect.NewBindingServiceHandler(s, options...))
	mux.Handle(adminapiconnect.NewViewServiceHandler(s, options...))
	mux.Handle(adminapiconnect.NewDebugServiceHandler(s, options...))
}

// translator gives the errors of every call their Connect code.
type translator struct{ logger zerolog.Logger }

func (s *Server) translate() connect.Interceptor { return translator{s.Logger} }

func (t translator) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		response, err := next(ctx, request)
		return response, t.coded(request.Spec().Procedure, err)
	}
}

func (t translator) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (t translator) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return t.coded(conn.Spec().Procedure, next(ctx, conn))
	}
}

func (t translator) coded(procedure string, err error) error {
	if err == nil {
		return nil
	}
	var already *connect.Error
	if errors.As(err, &already) {
		return err
	}
	code := connectCode(err)
	if code == connect.CodeInternal {
		t.logger.Error().Err(err).Str("procedure", procedure).Msg("admin request met an unexpected error")
	}
	return connect.NewError(code, err)
}

// connectCode says what kind of failure an error is.
func connectCode(err error) connect.Code {
	if errors.Is(err, context.DeadlineExceeded) {
		return connect.CodeDeadlineExceeded
	}
	switch broker.CodeOf(err) {
	case broker.UnknownTopicOrPartition, broker.UnknownTopicID, broker.GroupIDNotFound, broker.ResourceNotFound,
		broker.BrokerIDNotRegistered:
		return connect.CodeNotFound
	case broker.TopicAlreadyExists, broker.DuplicateResource:
		return connect.CodeAlreadyExists
	case broker.InvalidTopic, broker.InvalidPartitions, broker.InvalidReplicationFactor, broker.InvalidReplicaAssignment,
		broker.InvalidConfig, broker.InvalidRequest, broker.OffsetOutOfRange, broker.InvalidGroupID:
		return connect.CodeInvalidArgument
	case broker.InconsistentVoterSet, broker.DuplicateBrokerRegistration,
		broker.PolicyViolation, broker.NonEmptyGroup, broker.FencedLeaderEpoch, broker.InvalidUpdateVersion:
		return connect.CodeFailedPrecondition
	case broker.NotController, broker.CoordinatorLoadInProgress, broker.CoordinatorNotAvailable, broker.NotCoordinator,
		broker.NotLeaderOrFollower, broker.LeaderNotAvailable, broker.StorageError, broker.NotEnoughReplicas, broker.RequestTimedOut,
		broker.IneligibleReplica: // a member that is not level yet
		return connect.CodeUnavailable
	}
	return connect.CodeInternal
}
