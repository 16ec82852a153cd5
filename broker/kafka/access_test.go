package kafka

import (
	"encoding/json"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
	"github.com/millrace-io/millrace/broker/scram"
)

// need is one thing that a request takes.
type need struct {
	resource  metadata.AccessResource
	operation metadata.Operation
}

func onTopic(o metadata.Operation) need   { return need{metadata.AccessTopic, o} }
func onGroup(o metadata.Operation) need   { return need{metadata.AccessGroup, o} }
func onCluster(o metadata.Operation) need { return need{metadata.AccessCluster, o} }

// needs is what Kafka's documentation says each request takes, written down beside and apart from the table of the face.
var needs = map[int16][]need{
	keyProduce:                      {onTopic(metadata.OperationWrite)},
	keyFetch:                        {onTopic(metadata.OperationRead)},
	keyListOffsets:                  {onTopic(metadata.OperationDescribe)},
	keyMetadata:                     {onTopic(metadata.OperationDescribe)},
	keyOffsetForLeaderEpoch:         {onTopic(metadata.OperationDescribe)},
	keyInitProducerID:               {onCluster(metadata.OperationIdempotentWrite)},
	keyOffsetCommit:                 {onGroup(metadata.OperationRead), onTopic(metadata.OperationRead)},
	keyOffsetFetch:                  {onGroup(metadata.OperationDescribe), onTopic(metadata.OperationDescribe)},
	keyFindCoordinator:              {onGroup(metadata.OperationDescribe)},
	keyJoinGroup:                    {onGroup(metadata.OperationRead)},
	keyHeartbeat:                    {onGroup(metadata.OperationRead)},
	keyLeaveGroup:                   {onGroup(metadata.OperationRead)},
	keySyncGroup:                    {onGroup(metadata.OperationRead)},
	keyDescribeGroups:               {onGroup(metadata.OperationDescribe)},
	keyListGroups:                   {onGroup(metadata.OperationDescribe)},
	keyConsumerGroupHeartbeat:       {onGroup(metadata.OperationRead), onTopic(metadata.OperationDescribe)},
	keyConsumerGroupDescribe:        {onGroup(metadata.OperationDescribe)},
	keyDeleteGroups:                 {onGroup(metadata.OperationDelete)},
	keyOffsetDelete:                 {onGroup(metadata.OperationDelete), onTopic(metadata.OperationRead)},
	keyCreateTopics:                 {onCluster(metadata.OperationCreate)},
	keyDeleteTopics:                 {onTopic(metadata.OperationDelete)},
	keyDeleteRecords:                {onTopic(metadata.OperationDelete)},
	keyCreatePartitions:             {onTopic(metadata.OperationAlter)},
	keyDescribeTopicPartitions:      {onTopic(metadata.OperationDescribe)},
	keyDescribeProducers:            {onTopic(metadata.OperationRead)},
	keyDescribeConfigs:              {onTopic(metadata.OperationDescribeConfigs)},
	keyAlterConfigs:                 {onTopic(metadata.OperationAlterConfigs)},
	keyIncrementalAlterConfigs:      {onTopic(metadata.OperationAlterConfigs)},
	keyListConfigResources:          {onCluster(metadata.OperationDescribeConfigs)},
	keyElectLeaders:                 {onCluster(metadata.OperationAlter), onTopic(metadata.OperationDescribe)},
	keyDescribeLogDirs:              {onCluster(metadata.OperationDescribe), onTopic(metadata.OperationDescribe)},
	keyAlterPartitionReassignments:  {onCluster(metadata.OperationAlter), onTopic(metadata.OperationDescribe)},
	keyListPartitionReassignments:   {onCluster(metadata.OperationDescribe)},
	keyDescribeClientQuotas:         {onCluster(metadata.OperationDescribeConfigs)},
	keyAlterClientQuotas:            {onCluster(metadata.OperationAlterConfigs)},
	keyDescribeQuorum:               {onCluster(metadata.OperationDescribe)},
	keyUpdateFeatures:               {onCluster(metadata.OperationAlter)},
	keyDescribeACLs:                 {onCluster(metadata.OperationDescribe)},
	keyCreateACLs:                   {onCluster(metadata.OperationAlter)},
	keyDeleteACLs:                   {onCluster(metadata.OperationAlter)},
	keyDescribeUserScramCredentials: {onCluster(metadata.OperationDescribe)},
	keyAlterUserScramCredentials:    {onCluster(metadata.OperationAlter)},

	keyApiVersions:      nil,
	keySaslHandshake:    nil,
	keySaslAuthenticate: nil,
	keyDescribeCluster:  nil,
}

// guarded is a face with an authorizer and SASL, and a user alice.
type guarded struct {
	*face
	address string
	given   []metadata.AccessRule
}

func newGuarded(t *testing.T, change func(*Config)) *guarded {
	t.Helper()
	g := &guarded{face: newFace(t, func(c *Config) {
		c.Authorizer = &Authorizer{SuperUsers: []string{"User:root"}}
		c.Sasl = Sasl{Mechanisms: Mechanisms(), PlainWithoutTLS: true, DecoySecret: []byte("secret")}
		if change != nil {
			change(c)
		}
	})}
	g.setPassword("alice", "secret")
	g.setPassword("root", "secret")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	port := int32(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		done <- g.server.Serve(Listener{
			Listener: listener, Name: "client", AdvertisedHost: "127.0.0.1", AdvertisedPort: port, RequireAuthentication: true,
		})
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	g.address = listener.Addr().String()
	return g
}

func (f *face) setPassword(user, password string) {
	f.t.Helper()
	for _, mechanism := range []metadata.ScramMechanism{metadata.ScramSHA256, metadata.ScramSHA512} {
		salt := []byte("salt of " + user + password)
		salted, err := scram.Salted(mechanism, password, salt, 4096)
		if err != nil {
			f.t.Fatal(err)
		}
		key := metadata.CredentialKey{User: user, Mechanism: mechanism}
		f.fold(metadata.ScramCredentialFact(scram.Credential(key, salted, salt, 4096)))
	}
}

// dial returns a connection of a user's.
func (g *guarded) dial(user string) *rawConn {
	g.t.Helper()
	c := dialRaw(g.t, g.address)
	c.authenticate(user, "secret")
	return c
}

// authenticate proves a password by PLAIN and returns the answer.
func (c *rawConn) authenticate(user, password string) *kmsg.SASLAuthenticateResponse {
	c.t.Helper()
	handshake := kmsg.NewPtrSASLHandshakeRequest()
	handshake.Version, handshake.Mechanism = 1, MechanismPlain
	if resp := ask[*kmsg.SASLHandshakeResponse](c, handshake); resp.ErrorCode != 0 {
		c.t.Fatalf("handshake: error %d", resp.ErrorCode)
	}
	return c.token("\x00" + user + "\x00" + password)
}

func (c *rawConn) token(token string) *kmsg.SASLAuthenticateResponse {
	c.t.Helper()
	req := kmsg.NewPtrSASLAuthenticateRequest()
	req.Version, req.SASLAuthBytes = 2, []byte(token)
	return ask[*kmsg.SASLAuthenticateResponse](c, req)
}

// give replaces alice's rules.
func (g *guarded) give(rules ...metadata.AccessRule) {
	g.t.Helper()
	for _, rule := range g.given {
		g.fold(metadata.AccessRuleRemovedFact(rule))
	}
	for _, rule := range rules {
		g.fold(metadata.AccessRuleFact(rule))
	}
	g.given = rules
}

func allowed(name string, n need) metadata.AccessRule {
	if n.resource == metadata.AccessCluster {
		name = metadata.ClusterName
	}
	return metadata.AccessRule{
		ResourcePattern: metadata.ResourcePattern{Resource: n.resource, Pattern: metadata.PatternLiteral, Name: name},
		Principal:       "User:alice", Host: metadata.AnyName, Operation: n.operation, Permission: metadata.PermissionAllow,
	}
}

// everythingBut allows each operation on a resource that does not bring the one along that is needed.
func everythingBut(n need) []metadata.AccessRule {
	var rules []metadata.AccessRule
	for operation := metadata.OperationRead; operation <= metadata.OperationTwoPhaseCommit; operation++ {
		brings := n.operation == metadata.OperationDescribe && slices.Contains([]metadata.Operation{metadata.OperationRead,
			metadata.OperationWrite, metadata.OperationDelete, metadata.OperationAlter}, operation) ||
			n.operation == metadata.OperationDescribeConfigs && operation == metadata.OperationAlterConfigs
		if operation != n.operation && !brings {
			rules = append(rules, allowed("g", need{n.resource, operation}))
		}
	}
	return rules
}

// request fills a request with names and with one element in each list, so that it is about one topic and one group.
func (g *guarded) request(key, version int16, name string, id broker.TopicID) kmsg.Request {
	req := filled(key, version)
	shorten(reflect.ValueOf(req).Elem(), name, id)
	switch req := req.(type) {
	case *kmsg.ProduceRequest:
		req.TransactionID, req.Acks = nil, -1
	case *kmsg.InitProducerIDRequest:
		req.TransactionalID = nil
	case *kmsg.FetchRequest:
		req.ReplicaID, req.ReplicaState.ID, req.SessionEpoch, req.Rack = -1, -1, -1, ""
	case *kmsg.FindCoordinatorRequest:
		req.CoordinatorType = coordinatorGroup
	case *kmsg.DescribeConfigsRequest:
		req.Resources[0].ResourceType = kmsg.ConfigResourceTypeTopic
	case *kmsg.AlterConfigsRequest:
		req.Resources[0].ResourceType = kmsg.ConfigResourceTypeTopic
	case *kmsg.IncrementalAlterConfigsRequest:
		req.Resources[0].ResourceType = kmsg.ConfigResourceTypeTopic
	case *kmsg.DeleteTopicsRequest:
		if version >= 6 { // by one of the two
			req.Topics[0].Topic = nil
		}
	case *kmsg.MetadataRequest:
		if version < 12 {
			req.Topics[0].TopicID = [16]byte{}
		}
	case *kmsg.DescribeTopicPartitionsRequest:
		req.Cursor = nil
	case *kmsg.ListGroupsRequest:
		req.StatesFilter, req.TypesFilter = nil, nil
	}
	return req
}

func shorten(v reflect.Value, name string, id broker.TopicID) {
	switch v.Kind() {
	case reflect.Pointer:
		shorten(v.Elem(), name, id)
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i).Name; field == "TopicID" {
				v.Field(i).Set(reflect.ValueOf([16]byte(id)))
			} else if field != "UnknownTags" {
				shorten(v.Field(i), name, id)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 && v.Len() > 1 {
			v.Set(v.Slice(0, 1))
		}
		for i := range v.Len() {
			shorten(v.Index(i), name, id)
		}
	case reflect.String:
		v.SetString(name)
	}
}

// refusals counts the authorization errors of a response.
func refusals(v reflect.Value) (count int) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			count += refusals(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name == "ErrorCode" {
				code := broker.Code(v.Field(i).Int())
				if slices.Contains([]broker.Code{broker.TopicAuthorizationFailed, broker.GroupAuthorizationFailed,
					broker.ClusterAuthorizationFailed, broker.TransactionalIDAuthFailed}, code) {
					count++
				}
			} else if v.Type().Field(i).IsExported() {
				count += refusals(v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			count += refusals(v.Index(i))
		}
	}
	return count
}

// shown is a response as text.
func shown(t *testing.T, resp kmsg.Response) string {
	t.Helper()
	text, err := json.Marshal(resp)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestX9NoKeyIsWithoutARow(t *testing.T) {
	for _, row := range matrix {
		if _, there := accesses[row.key]; !there {
			t.Errorf("%s has no row in the table of what requests need", row.name)
		}
		if _, there := needs[row.key]; !there {
			t.Errorf("%s has no row in the test", row.name)
		}
	}
	for key := range accesses {
		if _, served := lookup(key); !served {
			t.Errorf("api %d has a row and is not served", key)
		}
	}
}

// TestX9EveryRequestTakesWhatItNeeds asks every version of every request as a user who may do what it takes and no more,
// and as users who may do everything else to one of the resources.
func TestX9EveryRequestTakesWhatItNeeds(t *testing.T) {
	g := newGuarded(t, nil)
	for _, row := range matrix {
		if len(needs[row.key]) == 0 {
			continue
		}
		c := g.dial("alice")
		for version := row.min; version <= row.max; version++ {
			all := needs[row.key]
			for without := -1; without < len(all); without++ {
				id := g.topicNamed("g")
				var rules []metadata.AccessRule
				for i, n := range all {
					if i == without {
						rules = append(rules, everythingBut(n)...)
					} else {
						rules = append(rules, allowed("g", n))
					}
				}
				g.give(rules...)
				req := g.request(row.key, version, "g", id)
				resp := c.receive(req, c.send(req))
				refused := refusals(reflect.ValueOf(resp)) > 0
				hidden := !strings.Contains(shown(t, resp), `"g"`) && lists(row.key)
				switch {
				case without < 0 && (refused || hidden):
					t.Errorf("%s version %d with all that it needs: %s", row.name, version, shown(t, resp))
				case without >= 0 && !refused && !hidden:
					t.Errorf("%s version %d with all but %v: %s", row.name, version, all[without], shown(t, resp))
				}
			}
		}
		c.Close()
	}
}

// lists reports whether a key tells what there is, and leaves out what its user may not see.
func lists(key int16) bool {
	return key == keyListGroups || key == keyDescribeLogDirs
}

// topicNamed returns the id of a topic, which is made if it is not there.
func (g *guarded) topicNamed(name string) broker.TopicID {
	if topic, there := g.Image().TopicNamed(name); there {
		return topic.ID
	}
	return g.addTopic(name, 2)
}
