package kafka

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker/metadata"
)

// told are the authorized operations of one principal as every request tells them that has a field for them, each asked
// for, and not asked for where that can be.
type told struct{ topic, topicUnasked, listed, cluster, described, group, groupUnasked int32 }

func operationsTold(c *rawConn) told {
	var t told
	for _, asks := range []bool{true, false} {
		topics := kmsg.NewPtrMetadataRequest()
		topics.Version, topics.IncludeTopicAuthorizedOperations, topics.IncludeClusterAuthorizedOperations = 10, asks, asks
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr("orders")
		topics.Topics = append(topics.Topics, rt)
		groups := kmsg.NewPtrDescribeGroupsRequest()
		groups.Version, groups.Groups, groups.IncludeAuthorizedOperations = 5, []string{"g"}, asks
		metadata, described := ask[*kmsg.MetadataResponse](c, topics), ask[*kmsg.DescribeGroupsResponse](c, groups)
		if asks {
			t.topic, t.cluster, t.group = metadata.Topics[0].AuthorizedOperations, metadata.AuthorizedOperations, described.Groups[0].AuthorizedOperations
		} else {
			t.topicUnasked, t.groupUnasked = metadata.Topics[0].AuthorizedOperations, described.Groups[0].AuthorizedOperations
		}
	}
	partitions := kmsg.NewPtrDescribeTopicPartitionsRequest()
	partitions.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "orders"}}
	t.listed = ask[*kmsg.DescribeTopicPartitionsResponse](c, partitions).Topics[0].AuthorizedOperations
	cluster := kmsg.NewPtrDescribeClusterRequest()
	cluster.IncludeClusterAuthorizedOperations = true
	t.described = ask[*kmsg.DescribeClusterResponse](c, cluster).ClusterAuthorizedOperations
	return t
}

// The fields that Apache Kafka answers where everything is allowed.
const (
	anythingOnATopic   = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11
	anythingOnAGroup   = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11
	anythingOnACluster = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12
)

func TestAuthorizedOperationsAreWhatTheRulesAllow(t *testing.T) {
	g := newGuarded(t, nil)
	g.addTopic("orders", 1)
	for _, tc := range []struct {
		name, user string
		rules      []metadata.AccessRule
		want       told
	}{
		{"a superuser", "root", nil, told{
			anythingOnATopic, operationsUntold, anythingOnATopic, anythingOnACluster, anythingOnACluster, anythingOnAGroup, operationsUntold,
		}},
		// Read brings Describe along; who may not describe the cluster hears of nothing there.
		{"a reader", "alice", []metadata.AccessRule{
			allowed("orders", onTopic(metadata.OperationRead)), allowed("g", onGroup(metadata.OperationRead)),
			allowed("", onCluster(metadata.OperationCreate)),
		}, told{1<<3 | 1<<8, operationsUntold, 1<<3 | 1<<8, 0, 0, 1<<3 | 1<<8, operationsUntold}},
		{"nobody", "alice", nil, told{
			operationsUntold, operationsUntold, operationsUntold, 0, 0, operationsUntold, operationsUntold,
		}},
	} {
		g.give(tc.rules...)
		if got := operationsTold(g.dial(tc.user)); got != tc.want {
			t.Errorf("%s: told %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestWithoutAnAuthorizerEveryOperationIsAuthorized(t *testing.T) {
	f := newFace(t, nil)
	f.addTopic("orders", 1)
	want := told{
		anythingOnATopic, operationsUntold, anythingOnATopic, anythingOnACluster, anythingOnACluster, anythingOnAGroup, operationsUntold,
	}
	if got := operationsTold(dialRaw(t, f.serveTCP())); got != want {
		t.Errorf("told %+v, want %+v", got, want)
	}
}
