package kafka

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// Who may do what. A principal is who the connection proved to be, never what a request says of itself: neither a client
// id nor the group in a rack or a preamble counts. What each key needs is in the table below, and it is asked for in
// four places: refuseWhole before the request is looked at; resolveName and resolveID wherever a name or an id becomes a
// topic; guardedGroups wherever a group is touched; and mayCluster, mayGroup and mayCreate where a request holds
// resources of several kinds. What is listed without being named is left out instead of refused.

// Authorizer is how access rules are applied. Without one everything is allowed.
type Authorizer struct {
	// SuperUsers may do everything (super.users), each as User:NAME.
	SuperUsers []string
	// AllowUnlessRuled allows what no rule is about (allow.everyone.if.no.acl.found).
	AllowUnlessRuled bool
}

// access is what one key needs. Zero operations are not asked for.
type access struct {
	whole   metadata.Operation // on the cluster, before anything else is looked at
	cluster metadata.Operation // on the cluster, for the parts of a request that are about brokers
	topic   metadata.Operation // on every topic or view that is named, and on those that are listed
	group   metadata.Operation // on every group that is named
	open    bool               // nothing is needed, or not even authentication
}

// accesses is what every key needs, as Kafka has it. A key without a row is refused wherever there is an Authorizer.
var accesses = map[int16]access{
	keyProduce:              {topic: metadata.OperationWrite},
	keyFetch:                {topic: metadata.OperationRead, group: metadata.OperationRead}, // the group whose chain is read
	keyListOffsets:          {topic: metadata.OperationDescribe},
	keyMetadata:             {topic: metadata.OperationDescribe}, // and Create where a topic is made
	keyOffsetForLeaderEpoch: {topic: metadata.OperationDescribe},
	keyInitProducerID:       {cluster: metadata.OperationIdempotentWrite}, // or Write on any topic (KIP-679)

	keyOffsetCommit:           {group: metadata.OperationRead, topic: metadata.OperationRead},
	keyOffsetFetch:            {group: metadata.OperationDescribe, topic: metadata.OperationDescribe},
	keyFindCoordinator:        {group: metadata.OperationDescribe},
	keyJoinGroup:              {group: metadata.OperationRead},
	keyHeartbeat:              {group: metadata.OperationRead},
	keyLeaveGroup:             {group: metadata.OperationRead},
	keySyncGroup:              {group: metadata.OperationRead},
	keyDescribeGroups:         {group: metadata.OperationDescribe},
	keyListGroups:             {group: metadata.OperationDescribe, cluster: metadata.OperationDescribe}, // the cluster's shows all
	keyConsumerGroupHeartbeat: {group: metadata.OperationRead, topic: metadata.OperationDescribe},       // the topics it names
	keyConsumerGroupDescribe:  {group: metadata.OperationDescribe, topic: metadata.OperationDescribe},
	keyDeleteGroups:           {group: metadata.OperationDelete},
	keyOffsetDelete:           {group: metadata.OperationDelete, topic: metadata.OperationRead},

	keyCreateTopics:            {cluster: metadata.OperationCreate, topic: metadata.OperationCreate}, // either of them
	keyDeleteTopics:            {topic: metadata.OperationDelete},
	keyDeleteRecords:           {topic: metadata.OperationDelete},
	keyCreatePartitions:        {topic: metadata.OperationAlter},
	keyDescribeTopicPartitions: {topic: metadata.OperationDescribe},
	keyDescribeProducers:       {topic: metadata.OperationRead},

	keyDescribeConfigs: {
		topic: metadata.OperationDescribeConfigs, group: metadata.OperationDescribeConfigs, cluster: metadata.OperationDescribeConfigs,
	},
	keyAlterConfigs: {
		topic: metadata.OperationAlterConfigs, group: metadata.OperationAlterConfigs, cluster: metadata.OperationAlterConfigs,
	},
	keyIncrementalAlterConfigs: {
		topic: metadata.OperationAlterConfigs, group: metadata.OperationAlterConfigs, cluster: metadata.OperationAlterConfigs,
	},
	keyListConfigResources: {whole: metadata.OperationDescribeConfigs, topic: metadata.OperationDescribe},

	keyElectLeaders:                {whole: metadata.OperationAlter, topic: metadata.OperationDescribe},
	keyDescribeLogDirs:             {whole: metadata.OperationDescribe, topic: metadata.OperationDescribe},
	keyAlterPartitionReassignments: {whole: metadata.OperationAlter, topic: metadata.OperationDescribe},
	keyListPartitionReassignments:  {whole: metadata.OperationDescribe},
	keyDescribeQuorum:              {whole: metadata.OperationDescribe},
	keyUpdateFeatures:              {whole: metadata.OperationAlter},
	keyDescribeClientQuotas:        {whole: metadata.OperationDescribeConfigs},
	keyAlterClientQuotas:           {whole: metadata.OperationAlterConfigs},

	keyDescribeACLs:                 {whole: metadata.OperationDescribe},
	keyCreateACLs:                   {whole: metadata.OperationAlter},
	keyDeleteACLs:                   {whole: metadata.OperationAlter},
	keyDescribeUserScramCredentials: {whole: metadata.OperationDescribe},
	keyAlterUserScramCredentials:    {whole: metadata.OperationAlter},

	keyApiVersions:      {open: true},
	keySaslHandshake:    {open: true},
	keySaslAuthenticate: {open: true},
	keyDescribeCluster:  {open: true},
}

// question is what the session asked about before.
type question struct {
	operation metadata.Operation
	resource  metadata.AccessResource
	name      string
}

// answersMax bounds the answers that a session keeps.
const answersMax = 4096

// answers keeps what the rules said to a session, as long as the rules stay the same.
type answers struct {
	rules broker.Index
	known map[question]bool
}

// may reports whether the session's principal may do something.
func (s *session) may(operation metadata.Operation, resource metadata.AccessResource, name string) bool {
	if s.Authorizer == nil || s.super {
		return true
	}
	img := s.Metadata.Image()
	if s.answers.rules != img.AccessRulesIndex() || len(s.answers.known) >= answersMax {
		s.answers = answers{rules: img.AccessRulesIndex()}
	}
	q := question{operation, resource, name}
	allowed, known := s.answers.known[q]
	if !known {
		allowed = s.Authorizer.Permits(img.Access(metadata.Question{
			Principal: s.principal, Host: hostOf(s.conn.RemoteAddr()), Operation: operation, Resource: resource, Name: name,
		}))
		if s.answers.known == nil {
			s.answers.known = make(map[question]bool)
		}
		s.answers.known[q] = allowed
	}
	return allowed
}

// Allows reports whether the rules of an image, or being a superuser, let somebody do something.
func (a *Authorizer) Allows(img *metadata.Image, q metadata.Question) bool {
	return slices.Contains(a.SuperUsers, q.Principal) || a.Permits(img.Access(q))
}

// Permits reports whether a verdict lets somebody who is no superuser through.
func (a *Authorizer) Permits(verdict metadata.Verdict) bool {
	return verdict == metadata.Allowed || verdict == metadata.NoRule && a.AllowUnlessRuled
}

// mayCluster asks for what the key at hand needs on the cluster.
func (s *session) mayCluster() bool { return s.mayTo(s.asking.cluster) }

func (s *session) mayTo(operation metadata.Operation) bool {
	return s.may(operation, metadata.AccessCluster, metadata.ClusterName)
}

// mayGroup asks for what the key at hand needs on a group.
func (s *session) mayGroup(group string) bool {
	return s.may(s.asking.group, metadata.AccessGroup, group)
}

// mayTopic asks for what the key at hand needs on a topic or a view. Internal topics hold what belongs to others: to do
// more than look at one takes ClusterAction beside it.
func (s *session) mayTopic(name string) bool { return s.mayWithTopic(s.asking.topic, name) }

func (s *session) mayWithTopic(operation metadata.Operation, name string) bool {
	if s.Authorizer == nil || s.super {
		return true
	}
	looks := operation == metadata.OperationDescribe || operation == metadata.OperationDescribeConfigs
	if !looks && s.internal(name) && !s.mayTo(metadata.OperationClusterAction) {
		return false
	}
	return s.may(operation, metadata.AccessTopic, name)
}

func (s *session) internal(name string) bool {
	topic, exists := s.Metadata.Image().TopicNamed(name)
	return exists && topic.Internal || slices.Contains(reservedTopics, name)
}

// mayCreate reports whether a topic may be made: by who may make any, or may make one of that name.
func (s *session) mayCreate(name string) bool {
	return s.mayTo(metadata.OperationCreate) || s.mayWithTopic(metadata.OperationCreate, name)
}

// mayProduceSomewhere reports whether a producer id may be had.
func (s *session) mayProduceSomewhere() bool {
	if s.mayCluster() {
		return true
	}
	return s.Authorizer.Permits(s.Metadata.Image().AccessToAny(metadata.Question{
		Principal: s.principal, Host: hostOf(s.conn.RemoteAddr()), Operation: metadata.OperationWrite, Resource: metadata.AccessTopic,
	}))
}

// resolveName finds a topic or view by name, as findName does, for a principal that may do what the key at hand does. Who
// may not is told the same of topics that exist and of those that do not.
func (s *session) resolveName(img *metadata.Image, name string) (target, broker.Code) {
	if !s.mayTopic(name) {
		return target{name: name}, broker.TopicAuthorizationFailed
	}
	return findName(img, name)
}

// resolveAskedName is resolveName where a name that no topic can have is told apart: INVALID_TOPIC.
func (s *session) resolveAskedName(img *metadata.Image, name string) (target, broker.Code) {
	t, code := s.resolveName(img, name)
	if code == broker.UnknownTopicOrPartition && t.view == nil && broker.CheckTopicName(name) != nil {
		code = broker.InvalidTopic
	}
	return t, code
}

// resolveID finds a topic or view by its own id. Who may not touch it does not learn its name.
func (s *session) resolveID(img *metadata.Image, id broker.TopicID) (target, broker.Code) {
	t, code := findID(img, id)
	if t.name != "" && !s.mayTopic(t.name) {
		return target{id: id}, broker.TopicAuthorizationFailed
	}
	return t, code
}

// resolve finds a topic or view by id from the version on that drops names, and by name before.
func (s *session) resolve(img *metadata.Image, byID bool, id broker.TopicID, name string) (target, broker.Code) {
	if byID {
		return s.resolveID(img, id)
	}
	return s.resolveName(img, name)
}

// refuseWhole answers a request that needs something on the cluster which the principal has not, or nil.
func (s *session) refuseWhole(req kmsg.Request) kmsg.Response {
	row, known := accesses[req.Key()]
	if s.Authorizer == nil || known && (row.whole == 0 || s.mayTo(row.whole)) {
		return nil
	}
	code := s.note(broker.ClusterAuthorizationFailed)
	switch resp := req.ResponseKind().(type) {
	case *kmsg.ListConfigResourcesResponse:
		resp.ErrorCode = code
		return resp
	case *kmsg.ElectLeadersResponse:
		return refusedElection(req, resp, code)
	case *kmsg.DescribeLogDirsResponse:
		resp.ErrorCode = code // before v3 there is none, and no directory says the same
		return resp
	case *kmsg.ListPartitionReassignmentsResponse:
		resp.ErrorCode = code
		return resp
	case *kmsg.AlterPartitionAssignmentsResponse:
		resp.ErrorCode = code
		return resp
	case *kmsg.DescribeQuorumResponse:
		resp.ErrorCode = code
		return resp
	case *kmsg.DescribeClientQuotasResponse:
		resp.ErrorCode = code
		return resp
	case *kmsg.AlterClientQuotasResponse:
		return refusedQuotas(req, resp, code)
	case *kmsg.UpdateFeaturesResponse:
		resp.ErrorCode = code
		return resp
	}
	return s.refuseAccessChange(req, code)
}

// refuseAccessChange is refuseWhole for the keys that are about users and rules.
func (s *session) refuseAccessChange(req kmsg.Request, code int16) kmsg.Response {
	switch resp := req.ResponseKind().(type) {
	case *kmsg.DescribeACLsResponse:
		resp.ErrorCode = code
		return resp
	case *kmsg.CreateACLsResponse:
		for range req.(*kmsg.CreateACLsRequest).Creations {
			resp.Results = append(resp.Results, kmsg.CreateACLsResponseResult{ErrorCode: code})
		}
		return resp
	case *kmsg.DeleteACLsResponse:
		for range req.(*kmsg.DeleteACLsRequest).Filters {
			resp.Results = append(resp.Results, kmsg.DeleteACLsResponseResult{ErrorCode: code})
		}
		return resp
	case *kmsg.DescribeUserSCRAMCredentialsResponse:
		resp.ErrorCode = code
		return resp
	case *kmsg.AlterUserSCRAMCredentialsResponse:
		for _, user := range usersOf(req.(*kmsg.AlterUserSCRAMCredentialsRequest)) {
			resp.Results = append(resp.Results, kmsg.AlterUserSCRAMCredentialsResponseResult{User: user, ErrorCode: code})
		}
		return resp
	default:
		s.ending = refuse("no access row", "api %d has no way to say that it is not allowed", req.Key())
		return resp
	}
}

func refusedQuotas(req kmsg.Request, resp *kmsg.AlterClientQuotasResponse, code int16) kmsg.Response {
	for _, asked := range req.(*kmsg.AlterClientQuotasRequest).Entries {
		entry := kmsg.NewAlterClientQuotasResponseEntry()
		entry.ErrorCode = code
		for _, part := range asked.Entity {
			entity := kmsg.NewAlterClientQuotasResponseEntryEntity()
			entity.Type, entity.Name = part.Type, part.Name
			entry.Entity = append(entry.Entity, entity)
		}
		resp.Entries = append(resp.Entries, entry)
	}
	return resp
}

func refusedElection(req kmsg.Request, resp *kmsg.ElectLeadersResponse, code int16) kmsg.Response {
	resp.ErrorCode = code
	for _, rt := range req.(*kmsg.ElectLeadersRequest).Topics {
		topic := kmsg.NewElectLeadersResponseTopic()
		topic.Topic = rt.Topic
		for _, number := range rt.Partitions {
			topic.Partitions = append(topic.Partitions, kmsg.ElectLeadersResponseTopicPartition{Partition: number, ErrorCode: code})
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

// notUsable says why a topic that is named cannot be worked on.
func notUsable(code broker.Code, topic string) error {
	if code == broker.TopicAuthorizationFailed {
		return broker.Errorf(code, "no access to topic %q", topic)
	}
	return broker.Errorf(code, "there is no topic %q", topic)
}
