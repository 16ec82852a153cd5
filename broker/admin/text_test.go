package admin

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker/adminapi"
	"github.com/millrace-io/millrace/broker/metadata"
)

// What plugins print and clients write may be any bytes; an answer with bytes that are no UTF-8 could not be sent at all.
func TestAnswersHoldWhatOthersWrote(t *testing.T) {
	const bytes = "panic: \xff\xfe"
	partition := &adminapi.ChainPartition{}
	chainMessage(partition, ChainStatus{LastError: bytes, LastStderr: bytes}, 0)
	summary, offsets := lagOf(Group{
		GroupSummary: GroupSummary{Group: "g", ProtocolType: bytes}, Offsets: []GroupOffset{{Topic: "t", Metadata: bytes}},
	}, ends{image: metadata.NewImage()})
	for _, message := range []proto.Message{partition, summary, offsets[0]} {
		if _, err := proto.Marshal(message); err != nil {
			t.Error(err)
		}
	}
}
