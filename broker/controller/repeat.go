package controller

import "github.com/millrace-io/millrace/broker"

// Repeatable reports that a request may be put again when nobody knows whether it was recorded, because the controller died
// over it: deciding it a second time comes to what was asked for, and to the same answer. One that compares with what it
// finds, or adds to it, is not among them: its second answer would be about the first.
func Repeatable(r Request) bool {
	switch r := r.(type) {
	case RegisterBroker, UnfenceBroker, StopBroker, DrainBroker, ReportFailedReplicas, ReportSpace, JoinNode, Tidy,
		AllocateProducerIDs, PutPlugin, AlterQuota, CreateAccessRules, DeleteAccessRules, DeleteTopic:
		return true
	case CreateTopic:
		return !r.ID.IsZero() || r.ValidateOnly // By its id a topic is known for the one that the first request made.
	case AlterConfigs:
		return len(r.Append)+len(r.Subtract) == 0
	}
	return false
}

// Repeated is the outcome of a request that was put again: what is refused only because the first one did it, is done.
func Repeated(r Request, reply Reply, err error) (Reply, error) {
	if _, deletes := r.(DeleteTopic); deletes && broker.CodeOf(err) == broker.UnknownTopicID {
		return TopicRemoved{}, nil
	}
	return reply, err
}
