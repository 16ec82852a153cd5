package kafka

import (
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// groupConfigsOf describes a group's configs, whether or not the group exists: its own value, the broker's, the default.
func (s *session) groupConfigsOf(name string, documented bool) ([]kmsg.DescribeConfigsResponseResourceConfig, error) {
	if name == "" {
		return nil, broker.Errorf(broker.InvalidRequest, "a group has a name")
	}
	img := s.Metadata.Image()
	var all []kmsg.DescribeConfigsResponseResourceConfig
	for _, known := range metadata.GroupConfigs() {
		c := kmsg.NewDescribeConfigsResponseResourceConfig()
		c.Name, c.ConfigType = known.Name, kmsg.ConfigType(known.Type)
		add := func(name, value string, source kmsg.ConfigSource) {
			synonym := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			synonym.Name, synonym.Value, synonym.Source = name, &value, source
			c.ConfigSynonyms = append(c.ConfigSynonyms, synonym)
		}
		if own, set := img.Config(metadata.GroupResource(name), known.Name); set {
			add(known.Name, own, kmsg.ConfigSourceGroupConfig)
		}
		if value, configured := s.brokerConfig(known.Broker); configured && value != known.Default {
			add(known.Broker, value, kmsg.ConfigSourceStaticBrokerConfig)
		}
		add(known.Name, known.Default, kmsg.ConfigSourceDefaultConfig)
		c.Value, c.Source = c.ConfigSynonyms[0].Value, c.ConfigSynonyms[0].Source
		if documented {
			c.Documentation = &known.Doc
		}
		all = append(all, c)
	}
	return all, nil
}

// checkGroupLimits refuses values of a group's configs that this broker's file does not allow.
func (s *Server) checkGroupLimits(set map[string]string) error {
	for _, known := range metadata.GroupConfigs() {
		value, given := set[known.Name]
		if !given {
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			continue // The controller says what is wrong with it.
		}
		least, most := limitName(known.Broker, "min"), limitName(known.Broker, "max")
		if limit, configured := s.brokerNumber(least); configured && n < limit {
			return broker.Errorf(broker.InvalidConfig, "%s cannot be %d: %s is %d", known.Name, n, least, limit)
		}
		if limit, configured := s.brokerNumber(most); configured && n > limit {
			return broker.Errorf(broker.InvalidConfig, "%s cannot be %d: %s is %d", known.Name, n, most, limit)
		}
	}
	return nil
}

// limitName makes group.consumer.min.x of group.consumer.x.
func limitName(config, limit string) string {
	const area = "group.consumer."
	return area + limit + "." + strings.TrimPrefix(config, area)
}

func (s *Server) brokerConfig(name string) (string, bool) {
	for _, b := range s.BrokerConfigs {
		if b.Name == name {
			return b.Value, true
		}
	}
	return "", false
}

func (s *Server) brokerNumber(name string) (int64, bool) {
	value, _ := s.brokerConfig(name)
	n, err := strconv.ParseInt(value, 10, 64)
	return n, err == nil
}
