package golden

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Difference is one field in which two answers differ.
type Difference struct {
	Path        string // such as Metadata.Topics.Partitions.LeaderEpoch
	Kafka, Ours string
	Allowed     string // why it may, if it may
}

// comparison walks two answers side by side.
type comparison struct {
	label string
	found []Difference
}

// Compare returns the fields in which two answers to the same question differ.
func Compare(kafka, ours Exchange) []Difference {
	c := comparison{label: ours.Label}
	name := kmsg.NameForKey(ours.Key)
	if kafka.Response == nil || ours.Response == nil {
		if (kafka.Response == nil) != (ours.Response == nil) {
			c.differ(name, present(kafka.Response), present(ours.Response))
		}
		return c.found
	}
	one, err := decode(kafka.Key, kafka.Version, kafka.Response)
	two, errOurs := decode(ours.Key, ours.Version, ours.Response)
	if err != nil || errOurs != nil {
		c.differ(name, fmt.Sprint(err), fmt.Sprint(errOurs))
		return c.found
	}
	c.walk(name, reflect.ValueOf(one).Elem(), reflect.ValueOf(two).Elem())
	if again := two.AppendTo(nil); !bytes.HasSuffix(ours.Response, again) && bytes.HasSuffix(kafka.Response, one.AppendTo(nil)) {
		c.differ(name+".(bytes)", "as kmsg writes them", "otherwise")
	}
	return c.found
}

func present(answer []byte) string {
	if answer == nil {
		return "closes the connection"
	}
	return "answers"
}

func (c *comparison) differ(path, kafka, ours string) {
	d := Difference{Path: path, Kafka: kafka, Ours: ours}
	for _, r := range rulesIn(allowed, path) {
		if r.allows(c.label, kafka, ours) {
			d.Allowed = r.why
			break
		}
	}
	c.found = append(c.found, d)
}

func (c *comparison) walk(path string, a, b reflect.Value) {
	switch a.Kind() {
	case reflect.Struct:
		if tags, ok := a.Addr().Interface().(*kmsg.Tags); ok {
			if one, two := tagText(tags), tagText(b.Addr().Interface().(*kmsg.Tags)); one != two {
				c.differ(path, one, two)
			}
			return
		}
		for i := range a.NumField() {
			if f := a.Type().Field(i); f.IsExported() {
				c.walk(path+"."+f.Name, a.Field(i), b.Field(i))
			}
		}
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			if a.IsNil() != b.IsNil() {
				c.differ(path, text(a), text(b))
			}
			return
		}
		if a.Elem().Kind() == reflect.Struct {
			c.walk(path, a.Elem(), b.Elem())
		} else if text(a) != text(b) {
			c.differ(path, text(a), text(b))
		}
	case reflect.Slice:
		c.walkSlice(path, a, b)
	default:
		if text(a) != text(b) {
			c.differ(path, text(a), text(b))
		}
	}
}

// walkSlice pairs elements by their place, or by the field that the table names for the path.
func (c *comparison) walkSlice(path string, a, b reflect.Value) {
	if a.Type().Elem().Kind() == reflect.Uint8 {
		if text(a) != text(b) {
			c.differ(path, text(a), text(b))
		}
		return
	}
	if a.IsNil() != b.IsNil() {
		c.differ(path+"[]", text(a), text(b))
		return
	}
	one, two := elements(a), elements(b)
	if by, ok := pairedBy[path]; ok {
		one, two = c.pair(path, by, one, two)
	}
	if len(one) != len(two) {
		c.differ(path+"[]", fmt.Sprintf("%d elements", len(one)), fmt.Sprintf("%d elements", len(two)))
		return
	}
	for i := range one {
		c.walk(path, one[i], two[i])
	}
}

// pair returns the elements that both have, in the order of their names, and reports those that one lacks.
func (c *comparison) pair(path string, by func(reflect.Value) string, a, b []reflect.Value) (both, too []reflect.Value) {
	order := func(x, y reflect.Value) int { return strings.Compare(by(x), by(y)) }
	slices.SortStableFunc(a, order)
	slices.SortStableFunc(b, order)
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && order(a[0], b[0]) < 0:
			c.differ(path+"[]", "has "+by(a[0]), "has not "+by(a[0]))
			a = a[1:]
		case len(a) == 0 || order(a[0], b[0]) > 0:
			c.differ(path+"[]", "has not "+by(b[0]), "has "+by(b[0]))
			b = b[1:]
		default:
			both, too = append(both, a[0]), append(too, b[0])
			a, b = a[1:], b[1:]
		}
	}
	return both, too
}

// pairedBy names the arrays whose order says nothing, with what tells their elements apart.
var pairedBy = map[string]func(reflect.Value) string{
	"ApiVersions.ApiKeys":                                 fields("ApiKey"),
	"DescribeConfigs.Resources.Configs":                   fields("Name"),
	"CreateTopics.Topics.Configs":                         fields("Name"),
	"DeleteGroups.Groups":                                 fields("Group"),
	"DescribeGroups.Groups.Members":                       fields("ClientID"),
	"DescribeLogDirs.Dirs.Topics":                         fields("Topic"),
	"DescribeLogDirs.Dirs.Topics.Partitions":              fields("Partition"),
	"DescribeProducers.Topics.Partitions.ActiveProducers": fields("ProducerID"),
	"AlterClientQuotas.Entries.Entity":                    fields("Type"),
	"SASLHandshake.SupportedMechanisms":                   reflect.Value.String,
	"DescribeACLs.Resources":                              fields("ResourceType", "ResourceName", "ResourcePatternType"),
	"DescribeACLs.Resources.ACLs":                         fields("Principal", "Operation"),
	"DeleteACLs.Results.MatchingACLs":                     fields("ResourceName", "ResourcePatternType", "Operation"),
	"DescribeClientQuotas.Entries":                        fieldsOf("Entity", "Type", "Name"),
	"DescribeClientQuotas.Entries.Entity":                 fields("Type"),
	"DescribeClientQuotas.Entries.Values":                 fields("Key"),
	"DescribeUserSCRAMCredentials.Results":                fields("User"),
	"AlterUserSCRAMCredentials.Results":                   fields("User"),
	"ConsumerGroupDescribe.Groups.Members":                fields("MemberID"),
	"ListGroups.Groups":                                   fields("Group"),
	"Metadata.Topics":                                     fields("ErrorCode", "Topic"),
	"ListConfigResources.ConfigResources":                 fields("Type", "Name"),
}

// fields reads fields of an element as text.
func fields(names ...string) func(reflect.Value) string {
	return func(v reflect.Value) string {
		parts := make([]string, len(names))
		for i, name := range names {
			f := v.FieldByName(name)
			if f.Kind() == reflect.Pointer && !f.IsNil() {
				f = f.Elem()
			}
			parts[i] = fmt.Sprint(f.Interface())
		}
		return strings.Join(parts, " ")
	}
}

// fieldsOf reads fields of the elements of a list of an element's as text, whatever their order.
func fieldsOf(list string, names ...string) func(reflect.Value) string {
	return func(v reflect.Value) string {
		var parts []string
		for _, e := range elements(v.FieldByName(list)) {
			parts = append(parts, fields(names...)(e))
		}
		slices.Sort(parts)
		return strings.Join(parts, ", ")
	}
}

func elements(v reflect.Value) []reflect.Value {
	all := make([]reflect.Value, v.Len())
	for i := range all {
		all[i] = v.Index(i)
	}
	return all
}

func tagText(tags *kmsg.Tags) string {
	var all []string
	tags.Each(func(tag uint32, value []byte) { all = append(all, fmt.Sprintf("%d:%x", tag, value)) })
	return strings.Join(all, " ")
}

// text is a value for the report: null, a quoted string, bytes in hexadecimal, a number.
func text(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return "null"
		}
		return text(v.Elem())
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	case reflect.Array: // an id
		if v.IsZero() {
			return "none"
		}
		return fmt.Sprintf("%x", v.Interface())
	case reflect.Slice:
		if v.IsNil() {
			return "null"
		}
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return fmt.Sprintf("%x", v.Bytes())
		}
		return fmt.Sprintf("%d elements", v.Len())
	default:
		return fmt.Sprint(v.Interface())
	}
}
