package golden

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Two runs of a client never interleave alike: polls, heartbeats and rebalances fall otherwise. So what is compared is the
// set of values that each field of each answer had in a run.

// varying are the fields whose values are a matter of time in a client's run, over what allowed says.
var varying = []rule{
	{path: "*.Generation", kind: free, why: "counts rebalances"},
	{path: "*.Offset", kind: free, why: "when it was asked"},
	{path: "*.BaseOffset", kind: free, why: "how records were batched"},
	{path: "*.HighWatermark", kind: free, why: "when it was asked"},
	{path: "*.LastStableOffset", kind: free, why: "when it was asked"},
	{path: "*.RecordBatches", kind: free, why: "when it was asked"},
	{path: "*.EndOffset", kind: free, why: "when it was asked"},
	{path: "*.MemberAssignment", kind: free, why: "who leads, and whom it met"},
	{path: "*.ProtocolMetadata", kind: free, why: "holds a generation"},
	{path: "*.Members[]", kind: free, why: "only a leader is told, and whom it met"},
	{path: "Heartbeat.ErrorCode", kind: free, why: "when a rebalance is noticed"},
	{path: "SyncGroup.ErrorCode", kind: free, why: "when a rebalance is noticed"},
	{path: "OffsetCommit.Topics.Partitions.ErrorCode", kind: free, why: "when a rebalance is noticed"},
	{path: "OffsetCommit.Topics[]", kind: free, why: "whether there was something to commit"},
	{path: "Fetch.Topics[]", kind: free, why: "whether there was something new in a session"},
	{path: "Fetch.ErrorCode", kind: free, why: "when a session was forgotten"},
	{path: "Fetch.SessionID", kind: free, why: "when a session was closed"},
	{path: "Metadata.Topics[]", kind: free, why: "when it was asked"},
	{path: "Metadata.Topics.ErrorCode", kind: free, why: "how soon a new topic is known"},
	{path: "Metadata.Topics.Partitions.ErrorCode", kind: free, why: "how soon a new topic is led"},
	{path: "Produce.Topics.Partitions.ErrorCode", kind: begins, kafka: "6", ours: "6", why: "how soon a new topic is led"},
	{path: "Produce.Topics.Partitions.LogStartOffset", kind: begins, kafka: "-1", ours: "-1", why: "how soon a new topic is led"},
	{path: "FindCoordinator.ErrorCode", kind: free, why: "how soon there is a coordinator: Kafka makes its topic when it is first asked"},
	{path: "FindCoordinator.NodeID", kind: free, why: "how soon there is a coordinator"},
	{path: "FindCoordinator.Host", kind: free, why: "how soon there is a coordinator"},
	{path: "FindCoordinator.Coordinators.ErrorCode", kind: free, why: "how soon there is a coordinator"},
	{path: "FindCoordinator.Coordinators.NodeID", kind: free, why: "how soon there is a coordinator"},
	{path: "FindCoordinator.Coordinators.Host", kind: free, why: "how soon there is a coordinator"},
	{path: "InitProducerID.ErrorCode", kind: free, why: "how soon there are producer ids: Kafka asks for its first block when it is asked"},
	{path: "InitProducerID.ProducerEpoch", kind: free, why: "how soon there are producer ids"},
	{path: "JoinGroup.ErrorCode", kind: free, why: "how soon there is a coordinator"},
	{path: "JoinGroup.MemberID", kind: free, why: random},
	{path: "JoinGroup.Protocol", kind: free, why: "how soon there is a coordinator"},
	{path: "JoinGroup.ProtocolType", kind: free, why: "how soon there is a coordinator"},
	{path: "OffsetFetch.Groups.ErrorCode", kind: free, why: "how soon there is a coordinator"},
	{path: "OffsetFetch.Groups.Topics.Partitions.Metadata", kind: free, why: "the client's own: its random id"},
	{path: "OffsetFetch.Topics.Partitions.Metadata", kind: free, why: "the client's own: its random id"},
	{path: "Metadata.Topics.Topic", kind: free, why: "internal topics, where all topics are asked for"},
	{path: "Metadata.Topics.IsInternal", kind: free, why: "internal topics, where all topics are asked for"},
	{path: "Metadata.Topics.Partitions.Partition", kind: free, why: "internal topics, where all topics are asked for"},
	{path: "ApiVersions.ApiKeys.ApiKey", kind: free, why: "an API that is not spoken, or not yet"},
	{path: "CreateTopics.Topics.Configs.Name", kind: free, why: tiered},
	{path: "CreateTopics.Topics.Configs.Value", kind: free, why: tiered},
	{path: "*.Port", kind: free, why: address},
	{path: "*.LeaderID", kind: free, why: random},
}

// profile is the values that each field had, by API, version and path.
type profile map[[2]int16]values

// values are those of each field, by its path.
type values map[string]map[string]bool

// Traffic is a client's run against both brokers.
type Traffic struct {
	Client      string
	Kafka, Ours []Exchange
}

// Compare returns one pair for each API and version that the client asked of both, with the fields in which they differ,
// and the APIs and versions that it asked of one only.
func (t Traffic) Compare() (pairs []Pair, alone []string) {
	kafka, ours := profileOf(t.Kafka), profileOf(t.Ours)
	order := func(a, b [2]int16) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) }
	for _, at := range slices.SortedFunc(maps.Keys(ours), order) {
		theirs, asked := kafka[at]
		if !asked {
			alone = append(alone, "only here "+api(at))
			continue
		}
		p := Pair{Ours: Exchange{Label: t.Client, Key: at[0], Version: at[1]}, Kafka: Exchange{Key: at[0], Version: at[1]}}
		for _, path := range slices.Sorted(maps.Keys(merged(theirs, ours[at]))) {
			if d, differs := contrast(t.Client, path, theirs[path], ours[at][path]); differs {
				p.Found = append(p.Found, d)
			}
		}
		pairs = append(pairs, p)
	}
	for _, at := range slices.SortedFunc(maps.Keys(kafka), order) {
		if _, asked := ours[at]; !asked {
			alone = append(alone, "only of Kafka "+api(at))
		}
	}
	return pairs, alone
}

func api(at [2]int16) string {
	return strings.Join([]string{kmsg.NameForKey(at[0]), "version", text(reflect.ValueOf(at[1]))}, " ")
}

func merged(a, b values) map[string]bool {
	all := map[string]bool{}
	for path := range a {
		all[path] = true
	}
	for path := range b {
		all[path] = true
	}
	return all
}

// contrast compares the values of one field, as the tables allow.
func contrast(label, path string, kafka, ours map[string]bool) (Difference, bool) {
	if maps.Equal(kafka, ours) {
		return Difference{}, false
	}
	d := Difference{Path: path, Kafka: set(kafka), Ours: set(ours)}
	if len(kafka) == 0 || len(ours) == 0 {
		d.Allowed = "seen in one run only: a list that was empty in the other"
		return d, true
	}
	for _, r := range slices.Concat(rulesIn(allowed, path), rulesIn(varying, path)) {
		switch {
		case r.label != "" && !strings.HasPrefix(label, r.label):
		case r.kind == free || r.kind == more, r.kind == presence && maps.Equal(empties(kafka), empties(ours)):
			d.Allowed = r.why
		case r.kind == begins || r.kind == exactly:
			if only(kafka, ours, r.kafka) && only(ours, kafka, r.ours) {
				d.Allowed = r.why
			}
		case r.kind == oneMore && isOneMore(byNumber(kafka), byNumber(ours)):
			d.Allowed = r.why
		}
	}
	return d, true
}

// only reports whether what a has and b has not begins with a text.
func only(a, b map[string]bool, text string) bool {
	for value := range a {
		if !b[value] && !strings.HasPrefix(value, text) {
			return false
		}
	}
	return true
}

// byNumber writes the numbers of a set in their order.
func byNumber(values map[string]bool) string {
	return strings.Join(slices.SortedFunc(maps.Keys(values), func(a, b string) int {
		x, errX := strconv.Atoi(a)
		y, errY := strconv.Atoi(b)
		if errX != nil || errY != nil {
			return cmp.Compare(a, b)
		}
		return cmp.Compare(x, y)
	}), " ")
}

func empties(values map[string]bool) map[bool]bool {
	seen := map[bool]bool{}
	for value := range values {
		seen[isEmpty(value)] = true
	}
	return seen
}

func set(values map[string]bool) string {
	return "{" + strings.Join(slices.Sorted(maps.Keys(values)), ", ") + "}"
}

func profileOf(exchanges []Exchange) profile {
	all := profile{}
	for _, e := range exchanges {
		resp, err := decode(e.Key, e.Version, e.Response)
		if err != nil {
			continue // of a version that kmsg does not know
		}
		at := [2]int16{e.Key, e.Version}
		if all[at] == nil {
			all[at] = values{}
		}
		all[at].note(kmsg.NameForKey(e.Key), reflect.ValueOf(resp).Elem())
	}
	return all
}

func (v values) add(path, value string) {
	if v[path] == nil {
		v[path] = map[string]bool{}
	}
	v[path][value] = true
}

// note files every field of an answer.
func (v values) note(path string, field reflect.Value) {
	switch field.Kind() {
	case reflect.Struct:
		if tags, ok := field.Addr().Interface().(*kmsg.Tags); ok {
			v.add(path, tagText(tags))
			return
		}
		for i := range field.NumField() {
			if f := field.Type().Field(i); f.IsExported() && f.Name != "Version" {
				v.note(path+"."+f.Name, field.Field(i))
			}
		}
	case reflect.Slice:
		if field.Type().Elem().Kind() == reflect.Uint8 {
			v.add(path, text(field))
			return
		}
		switch {
		case field.IsNil():
			v.add(path+"[]", "null")
		case field.Len() == 0:
			v.add(path+"[]", "0 elements")
		}
		for i := range field.Len() {
			v.note(path, field.Index(i))
		}
	case reflect.Pointer:
		if !field.IsNil() && field.Elem().Kind() == reflect.Struct {
			v.note(path, field.Elem())
			return
		}
		v.add(path, text(field))
	default:
		v.add(path, text(field))
	}
}
