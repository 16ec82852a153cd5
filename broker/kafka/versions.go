package kafka

import "slices"

// API keys in use, with Kafka's numbers.
const (
	keyProduce                      int16 = 0
	keyFetch                        int16 = 1
	keyListOffsets                  int16 = 2
	keyMetadata                     int16 = 3
	keyOffsetCommit                 int16 = 8
	keyOffsetFetch                  int16 = 9
	keyFindCoordinator              int16 = 10
	keyJoinGroup                    int16 = 11
	keyHeartbeat                    int16 = 12
	keyLeaveGroup                   int16 = 13
	keySyncGroup                    int16 = 14
	keyDescribeGroups               int16 = 15
	keyListGroups                   int16 = 16
	keySaslHandshake                int16 = 17
	keyApiVersions                  int16 = 18
	keyCreateTopics                 int16 = 19
	keyDeleteTopics                 int16 = 20
	keyDeleteRecords                int16 = 21
	keyInitProducerID               int16 = 22
	keyOffsetForLeaderEpoch         int16 = 23
	keyDescribeACLs                 int16 = 29
	keyCreateACLs                   int16 = 30
	keyDeleteACLs                   int16 = 31
	keyDescribeConfigs              int16 = 32
	keyAlterConfigs                 int16 = 33
	keyDescribeLogDirs              int16 = 35
	keySaslAuthenticate             int16 = 36
	keyCreatePartitions             int16 = 37
	keyDeleteGroups                 int16 = 42
	keyElectLeaders                 int16 = 43
	keyIncrementalAlterConfigs      int16 = 44
	keyAlterPartitionReassignments  int16 = 45
	keyListPartitionReassignments   int16 = 46
	keyOffsetDelete                 int16 = 47
	keyDescribeClientQuotas         int16 = 48
	keyAlterClientQuotas            int16 = 49
	keyDescribeUserScramCredentials int16 = 50
	keyAlterUserScramCredentials    int16 = 51
	keyDescribeQuorum               int16 = 55
	keyUpdateFeatures               int16 = 57
	keyDescribeCluster              int16 = 60
	keyDescribeProducers            int16 = 61
	keyConsumerGroupHeartbeat       int16 = 68
	keyConsumerGroupDescribe        int16 = 69
	keyListConfigResources          int16 = 74
	keyDescribeTopicPartitions      int16 = 75
)

// api is one row of the protocol matrix.
type api struct {
	key      int16
	name     string
	listed   int16 // the lowest version that ApiVersions lists
	min, max int16 // the versions that are served
}

// matrix is everything that is spoken, by key. Produce is listed from version 0 because librdkafka up to 2.11.0 takes a
// missing 0 for a broker that cannot compress (T1); its versions 0 to 2 are not served. A key enters this table when it
// works: clients switch features on by what is listed.
var matrix = []api{
	{key: keyProduce, name: "Produce", listed: 0, min: 3, max: 13},
	{key: keyFetch, name: "Fetch", listed: 4, min: 4, max: 18},
	{key: keyListOffsets, name: "ListOffsets", listed: 1, min: 1, max: 10},
	{key: keyMetadata, name: "Metadata", listed: 0, min: 0, max: 13},
	{key: keyOffsetCommit, name: "OffsetCommit", listed: 2, min: 2, max: 10},
	{key: keyOffsetFetch, name: "OffsetFetch", listed: 1, min: 1, max: 10},
	{key: keyFindCoordinator, name: "FindCoordinator", listed: 0, min: 0, max: 6},
	{key: keyJoinGroup, name: "JoinGroup", listed: 0, min: 0, max: 9},
	{key: keyHeartbeat, name: "Heartbeat", listed: 0, min: 0, max: 4},
	{key: keyLeaveGroup, name: "LeaveGroup", listed: 0, min: 0, max: 5},
	{key: keySyncGroup, name: "SyncGroup", listed: 0, min: 0, max: 5},
	{key: keyDescribeGroups, name: "DescribeGroups", listed: 0, min: 0, max: 6},
	{key: keyListGroups, name: "ListGroups", listed: 0, min: 0, max: 5},
	{key: keySaslHandshake, name: "SaslHandshake", listed: 0, min: 0, max: 1},
	{key: keyApiVersions, name: "ApiVersions", listed: 0, min: 0, max: 4},
	{key: keyCreateTopics, name: "CreateTopics", listed: 2, min: 2, max: 7},
	{key: keyDeleteTopics, name: "DeleteTopics", listed: 1, min: 1, max: 6},
	{key: keyDeleteRecords, name: "DeleteRecords", listed: 0, min: 0, max: 2},
	{key: keyInitProducerID, name: "InitProducerId", listed: 0, min: 0, max: 5},
	{key: keyOffsetForLeaderEpoch, name: "OffsetForLeaderEpoch", listed: 2, min: 2, max: 4},
	{key: keyDescribeACLs, name: "DescribeAcls", listed: 1, min: 1, max: 3},
	{key: keyCreateACLs, name: "CreateAcls", listed: 1, min: 1, max: 3},
	{key: keyDeleteACLs, name: "DeleteAcls", listed: 1, min: 1, max: 3},
	{key: keyDescribeConfigs, name: "DescribeConfigs", listed: 1, min: 1, max: 4},
	{key: keyAlterConfigs, name: "AlterConfigs", listed: 0, min: 0, max: 2},
	{key: keyDescribeLogDirs, name: "DescribeLogDirs", listed: 1, min: 1, max: 5},
	{key: keySaslAuthenticate, name: "SaslAuthenticate", listed: 0, min: 0, max: 2},
	{key: keyCreatePartitions, name: "CreatePartitions", listed: 0, min: 0, max: 3},
	{key: keyDeleteGroups, name: "DeleteGroups", listed: 0, min: 0, max: 3},
	{key: keyElectLeaders, name: "ElectLeaders", listed: 0, min: 0, max: 2},
	{key: keyIncrementalAlterConfigs, name: "IncrementalAlterConfigs", listed: 0, min: 0, max: 1},
	{key: keyAlterPartitionReassignments, name: "AlterPartitionReassignments", listed: 0, min: 0, max: 1},
	{key: keyListPartitionReassignments, name: "ListPartitionReassignments", listed: 0, min: 0, max: 0},
	{key: keyOffsetDelete, name: "OffsetDelete", listed: 0, min: 0, max: 0},
	{key: keyDescribeClientQuotas, name: "DescribeClientQuotas", listed: 0, min: 0, max: 1},
	{key: keyAlterClientQuotas, name: "AlterClientQuotas", listed: 0, min: 0, max: 1},
	{key: keyDescribeUserScramCredentials, name: "DescribeUserScramCredentials", listed: 0, min: 0, max: 0},
	{key: keyAlterUserScramCredentials, name: "AlterUserScramCredentials", listed: 0, min: 0, max: 0},
	{key: keyDescribeQuorum, name: "DescribeQuorum", listed: 0, min: 0, max: 2},
	{key: keyUpdateFeatures, name: "UpdateFeatures", listed: 0, min: 0, max: 2},
	{key: keyDescribeCluster, name: "DescribeCluster", listed: 0, min: 0, max: 2},
	{key: keyDescribeProducers, name: "DescribeProducers", listed: 0, min: 0, max: 0},
	{key: keyConsumerGroupHeartbeat, name: "ConsumerGroupHeartbeat", listed: 0, min: 0, max: 1},
	{key: keyConsumerGroupDescribe, name: "ConsumerGroupDescribe", listed: 0, min: 0, max: 1},
	{key: keyListConfigResources, name: "ListConfigResources", listed: 0, min: 0, max: 1},
	{key: keyDescribeTopicPartitions, name: "DescribeTopicPartitions", listed: 0, min: 0, max: 0},
}

// lookup returns the row of a key.
func lookup(key int16) (api, bool) {
	i, found := slices.BinarySearchFunc(matrix, key, func(a api, key int16) int { return int(a.key) - int(key) })
	if !found {
		return api{}, false
	}
	return matrix[i], true
}

// serves reports whether a version is answered.
func (a api) serves(version int16) bool { return version >= a.min && version <= a.max }
