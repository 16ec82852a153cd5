package golden

import (
	"regexp"
	"strconv"
	"strings"
)

// rule lets a field differ.
type rule struct {
	path  string // of the field; * at the front stands for any API
	label string // only where the question's label begins with it
	kind  allowance
	kafka string // for exactly and begins: what Kafka says
	ours  string // and what we say
	why   string
}

type allowance int

const (
	free     allowance = iota // any two values
	presence                  // two values that are both empty or both not
	more                      // ours may say something where Kafka says nothing
	exactly                   // just these two
	begins                    // values that begin with these two
	oneMore                   // numbers, every one of which is one higher in Kafka unless it is negative
)

const (
	lastOfTwo   = "Kafka takes the last of the two"
	whenWorking = "features are listed when they work (T4, T5)"
	closes      = "closes the connection"
	answers     = "answers"
	toldWhy     = "Kafka closes the connection where it could say why"
	bothAtOnce  = "a user may get the credentials of both mechanisms in one request"
	fromTwo     = "the first member of a group is at epoch 1; in Kafka at 2, because a group has an epoch before it has members"
	random      = "a random id"
	aTime       = "a time"
	address     = "an address"
	tiered      = "a config of tiered storage, of throttled replication or of a compression level: there is none"
	ownFile     = "a broker's configs are its own: those of its file, which are read-only, all told as if they were set there"
	better      = "Kafka has no code for it and says UNKNOWN_SERVER_ERROR"
)

// allowed is everything in which an answer may differ from Kafka's.
var allowed = []rule{
	{path: "*.ThrottleMillis", kind: free, why: aTime},
	{path: "*.ErrorMessage", kind: more, why: "texts are for people; refusals say why more often than Kafka's"},
	{path: "*.TopicID", kind: presence, why: random},
	{path: "*.MemberID", kind: presence, why: random},
	{path: "*.LeaderID", kind: presence, why: random},
	{path: "*.ClusterID", kind: presence, why: random},
	{path: "*.ProducerID", kind: presence, why: random},
	{path: "Fetch.SessionID", kind: presence, why: random},
	{path: "*.Port", kind: presence, why: address},

	// ApiVersions: what is listed differs for good reasons (docs/PROTOCOL.md); the versions in common are compared.
	{path: "ApiVersions.ApiKeys[]", kind: begins, kafka: "has ", ours: "has not ", why: "an API that is not spoken, or not yet"},
	{path: "ApiVersions.ApiKeys[]", kind: begins, kafka: "has not ", ours: "has ", why: "an API of a later Kafka, or one that Kafka lists if asked"},
	{path: "ApiVersions.ApiKeys.MaxVersion", kind: free, why: "versions of a later Kafka, or not yet spoken"},
	{path: "ApiVersions.ApiKeys.MinVersion", kind: free, why: "versions that are not spoken"},
	{path: "ApiVersions.SupportedFeatures[]", kind: free, why: whenWorking},
	{path: "ApiVersions.FinalizedFeatures[]", kind: free, why: whenWorking},
	{path: "ApiVersions.SupportedFeatures.Name", kind: free, why: whenWorking},
	{path: "ApiVersions.SupportedFeatures.MinVersion", kind: free, why: whenWorking},
	{path: "ApiVersions.SupportedFeatures.MaxVersion", kind: free, why: whenWorking},
	{path: "ApiVersions.FinalizedFeatures.Name", kind: free, why: whenWorking},
	{path: "ApiVersions.FinalizedFeatures.MinVersionLevel", kind: free, why: whenWorking},
	{path: "ApiVersions.FinalizedFeatures.MaxVersionLevel", kind: free, why: whenWorking},
	{path: "ApiVersions.FinalizedFeaturesEpoch", kind: free, why: whenWorking},

	// Users.
	{path: "SASLAuthenticate.SASLAuthBytes", label: "scram", kind: presence, why: "drawn for the exchange"},
	{path: "SASLAuthenticate", label: "no handshake", kind: exactly, kafka: closes, ours: answers, why: toldWhy},
	{path: "AlterUserSCRAMCredentials.Results.ErrorCode", label: "no salted password", kind: exactly, kafka: "-1", ours: "93", why: better},
	{path: "AlterUserSCRAMCredentials.Results.ErrorCode", label: "both mechanisms", kind: exactly, kafka: "92", ours: "0", why: bothAtOnce},
	{path: "AlterUserSCRAMCredentials.Results.ErrorMessage", label: "both mechanisms", kind: free, why: bothAtOnce},
	{path: "DescribeUserSCRAMCredentials.Results.CredentialInfos[]", label: "both mechanisms", kind: free, why: bothAtOnce},
	{path: "DescribeUserSCRAMCredentials.Results.ErrorCode", label: "both mechanisms", kind: free, why: bothAtOnce},
	{path: "DescribeUserSCRAMCredentials.Results.ErrorMessage", label: "both mechanisms", kind: free, why: bothAtOnce},
	{path: "DescribeUserSCRAMCredentials.Results[]", kind: exactly, kafka: "has not golden-both", ours: "has golden-both", why: bothAtOnce},
	{path: "CreateACLs.Results.ErrorCode", label: "a", kind: exactly, kafka: "-1", ours: "42", why: better},
	{path: "DescribeACLs", label: "unknown", kind: exactly, kafka: closes, ours: answers, why: toldWhy},
	{path: "DeleteACLs", label: "a good filter and a bad one", kind: exactly, kafka: closes, ours: answers, why: toldWhy},
	{path: "AlterClientQuotas.Entries.Entity[]", label: "the same kind twice", kind: free, why: lastOfTwo},
	{path: "AlterClientQuotas.Entries.Entity.Name", label: "the same kind twice", kind: free, why: lastOfTwo},
	{path: "AlterClientQuotas.Entries.ErrorCode", label: "the same kind twice", kind: exactly, kafka: "0", ours: "42", why: lastOfTwo},
	{path: "AlterClientQuotas.Entries[]", label: "the same entity twice", kind: free, why: "Kafka answers an entity once"},
	{path: "DescribeClientQuotas.Entries[]", kind: exactly, kafka: "has user b", ours: "has not user b", why: lastOfTwo},

	// Configs.
	{path: "CreateTopics.Topics.Configs[]", kind: begins, kafka: "has ", ours: "has not ", why: tiered},
	{path: "DescribeConfigs.Resources.Configs[]", kind: begins, kafka: "has ", ours: "has not ", why: tiered},
	{path: "DescribeConfigs.Resources.Configs[]", label: "broker", kind: free, why: ownFile},
	{path: "DescribeConfigs.Resources.Configs[]", label: "all brokers", kind: free, why: "configs for all brokers are not kept"},
	{path: "DescribeConfigs.Resources.Configs[]", label: "unknown group", kind: free, why: "groups have no configs yet"},
	{path: "DescribeConfigs.Resources.Configs.ReadOnly", label: "broker", kind: free, why: ownFile},
	{path: "DescribeConfigs.Resources.Configs.Source", label: "broker", kind: free, why: ownFile},
	{path: "DescribeConfigs.Resources.Configs.Value", label: "broker", kind: free, why: ownFile},
	{path: "DescribeConfigs.Resources.Configs.ConfigType", label: "broker", kind: free, why: ownFile},
	{path: "DescribeConfigs.Resources.Configs.IsSensitive", label: "broker", kind: free, why: ownFile},
	{path: "CreateTopics.Topics.Configs.Source", kind: exactly, kafka: "3", ours: "5",
		why: "Kafka with eligible leader replicas keeps min.insync.replicas as a config for all brokers"},
	{path: "DescribeConfigs.Resources.Configs.Source", kind: exactly, kafka: "DYNAMIC_DEFAULT_BROKER_CONFIG", ours: "DEFAULT_CONFIG",
		why: "Kafka with eligible leader replicas keeps min.insync.replicas as a config for all brokers"},
	{path: "DescribeConfigs.Resources.Configs.ConfigSynonyms.Name", kind: free, why: "a default is told under the topic config's own name"},
	{path: "DescribeConfigs.Resources.Configs.ConfigSynonyms[]", kind: free, why: "a default is told as a synonym of its own"},
	{path: "ListConfigResources.ConfigResources[]", kind: begins, kafka: "has 8 ", ours: "has not 8 ", why: "there are no broker loggers to set"},
	{path: "ListConfigResources.ConfigResources[]", kind: exactly, kafka: "has not 2 __millrace_modules", ours: "has 2 __millrace_modules",
		why: "an internal topic of ours"},
	{path: "IncrementalAlterConfigs.Resources.ErrorCode", label: "no such operation", kind: exactly, kafka: "-1", ours: "42", why: better},

	// Topics.
	{path: "Metadata.Topics[]", label: "all topics", kind: begins, kafka: "has not 0 __millrace", ours: "has 0 __millrace", why: "an internal topic of ours"},
	{path: "Metadata.Topics.Partitions[]", label: "all topics", kind: exactly, kafka: "1 elements", ours: "16 elements",
		why: "partitions of __consumer_offsets"},
	{path: "Metadata.ErrorCode", label: "null name", kind: exactly, kafka: "-1", ours: "42", why: better},
	{path: "Metadata.Topics[]", label: "null name", kind: begins, kafka: "has -1", ours: "has not -1", why: better},
	{path: "Metadata.Topics[]", label: "null name", kind: begins, kafka: "has not 42", ours: "has 42", why: better},
	{path: "CreateTopics.Topics.TopicID", label: "only tried", kind: free, why: "Kafka makes up an id for a topic that it does not make"},

	// Records.
	{path: "Produce.Topics.Partitions.ErrorCode", label: "no such codec", kind: exactly, kafka: "-1", ours: "76", why: better},
	{path: "Produce.Topics.Partitions.ErrorCode", label: "not compressed", kind: exactly, kafka: "-1", ours: "87", why: better},
	{path: "Produce.Topics.Partitions.ErrorCode", label: "zstd", kind: exactly, kafka: "-1", ours: "87", why: better},
	{path: "Produce.Topics.Partitions.LogStartOffset", kind: exactly, kafka: "0", ours: "-1", why: "told with an error by Kafka, where nobody reads it"},
	{path: "Produce.Topics.Partitions.LogAppendTime", label: "idempotent", kind: free,
		why: "for a batch that came again Kafka tells the batch's own time, though the topic keeps the producer's"},
	{path: "Produce.Topics.Partitions.ErrorRecords[]", label: "future time", kind: free, why: "a batch is refused as a whole"},
	{path: "Fetch.Topics.Partitions[]", label: "the same partition twice", kind: free, why: "a partition asked for twice is answered twice"},
	{path: "ListOffsets.Topics.Partitions[]", label: "the same partition twice", kind: free, why: "a partition asked for twice is answered twice"},

	// Groups.
	{path: "FindCoordinator.ErrorMessage", kind: exactly, kafka: `"NONE"`, ours: "null", why: "a text for no error"},
	{path: "ListGroups.Groups[]", kind: begins, kafka: "has golden-join-none", ours: "has not golden-join-none",
		why: "Kafka keeps an empty group of a member that it refused"},
	{path: "ConsumerGroupHeartbeat.MemberEpoch", kind: oneMore, why: fromTwo},
	{path: "ConsumerGroupDescribe.Groups.Epoch", kind: oneMore, why: fromTwo},
	{path: "ConsumerGroupDescribe.Groups.AssignmentEpoch", kind: oneMore, why: fromTwo},
	{path: "ConsumerGroupDescribe.Groups.Members.MemberEpoch", kind: oneMore, why: fromTwo},
	{path: "ConsumerGroupHeartbeat.ErrorCode", label: "away without an instance", kind: exactly, kafka: "42", ours: "69",
		why: "franz-go does not name the instance of a static member that goes"},
	{path: "OffsetDelete.Topics.Partitions.ErrorCode", kind: exactly, kafka: "3", ours: "0",
		why: "offsets of a topic that is gone may be what is to go"},
	{path: "OffsetDelete.ErrorCode", label: "nothing committed", kind: exactly, kafka: "0", ours: "69", why: "a group goes with its last offset"},
	{path: "OffsetDelete.Topics[]", label: "nothing committed", kind: free, why: "a group goes with its last offset"},

	// Brokers.
	{path: "DescribeLogDirs.Dirs.Dir", kind: presence, why: "a path of the machine"},
	{path: "DescribeLogDirs.Dirs.UsableBytes", kind: presence, why: "the disk, which others use too"},
	{path: "DescribeLogDirs.Dirs.TotalBytes", kind: presence, why: "the disk"},
	{path: "DescribeQuorum.Nodes.Listeners.Name", kind: presence, why: "the listener of the broker: that of the quorum does not speak Kafka"},
	{path: "DescribeQuorum.Topics.Partitions.LeaderEpoch", label: "metadata", kind: presence, why: "the raft term"},
	{path: "DescribeQuorum.Topics.Partitions.HighWatermark", label: "metadata", kind: presence, why: "the length of another log"},
	{path: "DescribeQuorum.Topics.Partitions.CurrentVoters.LogEndOffset", kind: presence, why: "the length of another log"},
	{path: "DescribeQuorum.Topics.Partitions.CurrentVoters.LastFetchTimestamp", kind: free, why: "raft has no fetches: -1"},
	{path: "DescribeQuorum.Topics.Partitions.CurrentVoters.LastCaughtUpTimestamp", kind: free, why: "raft has no fetches: -1"},
	{path: "*.ReplicaDirectoryID", kind: free, why: random},
}

// rulesIn returns the rows of a table for a path.
func rulesIn(table []rule, path string) []rule {
	var rows []rule
	for _, r := range table {
		if tail, any := strings.CutPrefix(r.path, "*"); r.path == path || any && strings.HasSuffix(path, tail) {
			rows = append(rows, r)
		}
	}
	return rows
}

func (r rule) allows(label, kafka, ours string) bool {
	if !strings.HasPrefix(label, r.label) {
		return false
	}
	switch r.kind {
	case presence:
		return isEmpty(kafka) == isEmpty(ours)
	case more:
		return isEmpty(kafka) || !isEmpty(ours)
	case exactly:
		return kafka == r.kafka && ours == r.ours
	case oneMore:
		return isOneMore(kafka, ours)
	case begins:
		return strings.HasPrefix(kafka, r.kafka) && strings.HasPrefix(ours, r.ours)
	default:
		return true
	}
}

// isOneMore reports whether the numbers in two texts, in their order, are one higher in the first, or negative and equal.
func isOneMore(kafka, ours string) bool {
	one, two := number.FindAllString(kafka, -1), number.FindAllString(ours, -1)
	if len(one) != len(two) {
		return false
	}
	for i := range one {
		a, errA := strconv.Atoi(one[i])
		b, errB := strconv.Atoi(two[i])
		if errA != nil || errB != nil || a != b+1 && (a != b || a >= 0) {
			return false
		}
	}
	return true
}

var number = regexp.MustCompile(`-?\d+`)

// isEmpty reports whether a value, as text writes it, says nothing.
func isEmpty(value string) bool {
	switch value {
	case "null", `""`, "", "none", "0", "-1", "0 elements":
		return true
	}
	return false
}
