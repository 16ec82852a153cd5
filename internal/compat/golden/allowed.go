package golden

import (
	"fmt"
	"reflect"
	"strings"
)

// rule lets a field differ.
type rule struct {
	path  string // of the field; * at the front stands for any API
	label string // only where the question's label begins with it
	kind  allowance
	kafka string // with exactly: what Kafka says
	ours  string // and what we say
	why   string
}

type allowance int

const (
	free     allowance = iota // any two values
	presence                  // any two values that are both empty or both not
	exactly                   // just these two
	prefix                    // values that begin with these two
)

// allowed is everything in which an answer may differ from Kafka's.
var allowed = []rule{
	{path: "*.ThrottleMillis", kind: free, why: "a time"},
	{path: "*.ErrorMessage", kind: presence, why: "the text of an error is for people"},
	{path: "*.TopicID", kind: presence, why: "a random id"},
	{path: "*.MemberID", kind: presence, why: "a random id"},
	{path: "*.LeaderID", kind: presence, why: "a random id"},
	{path: "*.ClusterID", kind: presence, why: "a random id"},
	{path: "*.ReplicaDirectoryID", kind: free, why: "a random id"},
	{path: "*.Port", kind: presence, why: "an address"},
	{path: "*.ProducerID", kind: presence, why: "a random id"},
	{path: "Fetch.SessionID", kind: presence, why: "a random id"},
}

// pairedBy names the arrays whose order says nothing, with what tells their elements apart.
var pairedBy = map[string]func(reflect.Value) string{
	"ApiVersions.ApiKeys":                                 field("ApiKey"),
	"DescribeConfigs.Resources.Configs":                   field("Name"),
	"CreateTopics.Topics.Configs":                         field("Name"),
	"DeleteGroups.Groups":                                 field("Group"),
	"DescribeLogDirs.Dirs.Topics.Partitions":              field("Partition"),
	"DescribeProducers.Topics.Partitions.ActiveProducers": field("ProducerID"),
	"ListGroups.Groups":                                   field("Group"),
	"Metadata.Topics":                                     func(v reflect.Value) string { return field("ErrorCode")(v) + field("Topic")(v) },
	"ListConfigResources.ConfigResources":                 func(v reflect.Value) string { return field("Type")(v) + field("Name")(v) },
}

// field reads a field of an element as text.
func field(name string) func(reflect.Value) string {
	return func(v reflect.Value) string {
		f := v.FieldByName(name)
		if f.Kind() == reflect.Pointer && !f.IsNil() {
			f = f.Elem()
		}
		return fmt.Sprint(f.Interface())
	}
}

// rulesFor returns the rows for a path.
func rulesFor(path string) []rule {
	var rows []rule
	for _, r := range allowed {
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
	case free:
		return true
	case presence:
		return isEmpty(kafka) == isEmpty(ours)
	case exactly:
		return kafka == r.kafka && ours == r.ours
	case prefix:
		return strings.HasPrefix(kafka, r.kafka) && strings.HasPrefix(ours, r.ours)
	}
	return false
}

// isEmpty reports whether a value, as text writes it, says nothing.
func isEmpty(value string) bool {
	switch value {
	case "null", `""`, "", "none", "0", "-1", "0 elements":
		return true
	}
	return false
}
