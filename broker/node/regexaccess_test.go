package node

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// TestARegularExpressionMatchesWhatItsOwnerMayDescribe has alice subscribe to everything: she gets the topic that she may
// read, the next one as soon as she may, and nothing that is somebody else's.
func TestARegularExpressionMatchesWhatItsOwnerMayDescribe(t *testing.T) {
	s := newSecured(t, func(c *Config) { c.Authorizer = true })
	s.user("alice", "secret")
	ids := map[string]broker.TopicID{}
	for _, name := range []string{"mine", "theirs", "later"} {
		ids[name] = s.createTopic(s.node, name, 1, nil)
	}
	s.allow("User:alice", metadata.AccessGroup, "g", metadata.OperationRead)
	s.allow("User:alice", metadata.AccessTopic, "mine", metadata.OperationRead)
	client := s.client(s.node, kgo.SASL(scram.Auth{User: "alice", Pass: "secret"}.AsSha512Mechanism()))
	epoch := int32(0)
	assigned := func() []broker.TopicID {
		t.Helper()
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.MemberEpoch, req.RebalanceTimeoutMillis = "g", "m", epoch, 5000
		req.SubscribedTopicRegex, req.Topics = kmsg.StringPtr(".*"), []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		resp, err := req.RequestWith(t.Context(), client)
		if err != nil || resp.ErrorCode != 0 || resp.Assignment == nil {
			t.Fatalf("answered %+v, %v", resp, err)
		}
		epoch = resp.MemberEpoch
		var topics []broker.TopicID
		for _, topic := range resp.Assignment.Topics {
			topics = append(topics, topic.TopicID)
		}
		return topics
	}
	if got := assigned(); !slices.Equal(got, []broker.TopicID{ids["mine"]}) {
		t.Fatalf("alice is to read %v, want %v alone", got, ids["mine"])
	}
	s.allow("User:alice", metadata.AccessTopic, "later", metadata.OperationDescribe)
	waitFor(t, "the topic that she may describe now", func() bool {
		got := assigned()
		return len(got) == 2 && slices.Contains(got, ids["mine"]) && slices.Contains(got, ids["later"])
	})
}
