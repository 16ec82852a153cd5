package raftctl

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// checkTopics asks a broker for the topics before records are produced or consumed. A Kafka client tries for ever to
// reach brokers, and to find topics; a person who mistyped a name wants to be told.
// It returns how many partitions the one with the fewest has.
func (c *cli) checkTopics(ctx context.Context, client *kgo.Client, topics ...string) (fewest int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	request := kmsg.NewPtrMetadataRequest()
	for _, topic := range topics {
		named := kmsg.NewMetadataRequestTopic()
		named.Topic = kmsg.StringPtr(topic)
		request.Topics = append(request.Topics, named)
	}
	// A connection to somebody who says nothing is waited for beyond the end of ctx, but not beyond that of the client.
	giveUp := context.AfterFunc(ctx, client.Close)
	response, err := request.RequestWith(ctx, client)
	giveUp()
	if errors.Is(err, kerr.SaslAuthenticationFailed) {
		return 0, fmt.Errorf("the brokers at %s refuse user %q: %w", strings.Join(c.brokers, ", "), c.access.user, err)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("nothing came within %s", c.timeout)
	}
	if err != nil {
		return 0, &hintedError{unhealthy("no broker answers at %s: %w", strings.Join(c.brokers, ", "), err),
			"`raftctl dev up` starts a local cluster; --brokers or a profile names another" + c.transportHint()}
	}
	var problems []error
	fewest = math.MaxInt
	for _, topic := range response.Topics {
		err := kerr.ErrorForCode(topic.ErrorCode)
		name := ""
		if topic.Topic != nil {
			name = *topic.Topic
		}
		switch {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			problems = append(problems, notFound("there is no topic %s; `raftctl topic list` names them, `raftctl topic create %s` makes it", name, name))
		case err != nil:
			problems = append(problems, fmt.Errorf("topic %q: %w", name, err))
		}
		fewest = min(fewest, len(topic.Partitions))
	}
	return fewest, errors.Join(problems...)
}

func (c *cli) transportHint() string {
	if c.tcp {
		return ""
	}
	return ", --tcp avoids QUIC where UDP is blocked"
}
