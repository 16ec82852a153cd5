package kafka

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/broker"
)

// golden is a request, as a client sends it, and what Apache Kafka answered, both without their size.
type golden struct {
	key, version      int16
	request, response []byte
	label             string
}

// goldens reads the frames that `go run ./internal/compat -only golden -goldens FILE` keeps.
func goldens(t *testing.T) []golden {
	t.Helper()
	text, err := os.ReadFile("testdata/kafka-4.3.1.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []golden
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 5)
		key, errKey := strconv.ParseInt(parts[0], 10, 16)
		version, errVersion := strconv.ParseInt(parts[1], 10, 16)
		request, errRequest := hex.DecodeString(parts[2])
		response, errResponse := hex.DecodeString(parts[3])
		if errKey != nil || errVersion != nil || errRequest != nil || errResponse != nil {
			t.Fatalf("line %q", line)
		}
		all = append(all, golden{int16(key), int16(version), request, response, parts[4]})
	}
	return all
}

// readResponse decodes a golden answer. An ApiVersions answer that refuses a version is in version 0.
func (g golden) readResponse(t *testing.T) kmsg.Response {
	t.Helper()
	resp := kmsg.ResponseForKey(g.key)
	resp.SetVersion(g.version)
	body := g.response[4:]
	if g.key == keyApiVersions && broker.Code(binary.BigEndian.Uint16(body)) == broker.UnsupportedVersion {
		resp.SetVersion(0)
	}
	if resp.IsFlexible() && g.key != keyApiVersions {
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		t.Fatalf("%s version %d, %s: %v", kmsg.NameForKey(g.key), g.version, g.label, err)
	}
	return resp
}

// TestGoldenRequestsAreTakenWhole decodes each request on the way that a connection's frames go.
func TestGoldenRequestsAreTakenWhole(t *testing.T) {
	s := &session{Server: &Server{Config: Config{Metrics: NoMetrics{}}}, authenticated: true}
	taken := map[int16]bool{}
	for _, g := range goldens(t) {
		if row, spoken := lookup(g.key); !spoken || !row.serves(g.version) {
			continue
		}
		h, req, err := s.decode(g.request)
		if err != nil {
			t.Errorf("%s version %d, %s: %v", kmsg.NameForKey(g.key), g.version, g.label, err)
			continue
		}
		taken[g.key] = true
		if again := req.AppendTo(nil); !bytes.HasSuffix(g.request, again) || h.clientID != "golden" {
			t.Errorf("%s version %d, %s: read as %+v", kmsg.NameForKey(g.key), g.version, g.label, req)
		}
	}
	for _, row := range matrix {
		if !taken[row.key] {
			t.Errorf("there is no golden request of %s", row.name)
		}
	}
}

// TestGoldenAnswersAreWrittenByteForByte reads Kafka's answers and writes them again.
func TestGoldenAnswersAreWrittenByteForByte(t *testing.T) {
	for _, g := range goldens(t) {
		resp := g.readResponse(t)
		h := header{key: g.key, version: g.version, correlationID: int32(binary.BigEndian.Uint32(g.response))}
		if got := appendResponse(nil, h, resp)[4:]; !bytes.Equal(got, g.response) {
			t.Errorf("%s version %d, %s:\n got %x\nwant %x", kmsg.NameForKey(g.key), g.version, g.label, got, g.response)
		}
	}
}

// TestGoldenFetchesAreWrittenByteForByte does so with the writer that Fetch has of its own.
func TestGoldenFetchesAreWrittenByteForByte(t *testing.T) {
	written := 0
	for _, g := range goldens(t) {
		if g.key != keyFetch {
			continue
		}
		resp := g.readResponse(t).(*kmsg.FetchResponse)
		answer := answerOf(resp)
		w := &fetchWriter{version: g.version, flexible: g.version >= 12, committed: answer.committed}
		w.meta = appendResponseHeader(nil, int32(binary.BigEndian.Uint32(g.response)), w.flexible)
		w.begin(answer, 0)
		w.topics(answer.partitions, &leaderHints{})
		if w.flexible {
			w.noTags()
		}
		var got bytes.Buffer
		pieces := w.pieces()
		if _, err := (*net.Buffers)(&pieces).WriteTo(&got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes()[4:], g.response) {
			t.Errorf("version %d, %s:\n got %x\nwant %x", g.version, g.label, got.Bytes()[4:], g.response)
		}
		written++
	}
	if written < 15 {
		t.Errorf("only %d golden fetches", written)
	}
}

// answerOf is what a Fetch response tells, in the writer's terms.
func answerOf(resp *kmsg.FetchResponse) fetchAnswer {
	answer := fetchAnswer{code: broker.Code(resp.ErrorCode), session: resp.SessionID}
	for _, rt := range resp.Topics {
		for _, rp := range rt.Partitions {
			asked := asked{topic: rt.Topic, id: rt.TopicID, FetchRequestTopicPartition: &kmsg.FetchRequestTopicPartition{Partition: rp.Partition}}
			answer.committed = rp.AbortedTransactions != nil
			answer.partitions = append(answer.partitions, fetched{
				asked: asked, source: newFakePartition(0), code: broker.Code(rp.ErrorCode), size: len(rp.RecordBatches),
				preferred: broker.NodeID(rp.PreferredReadReplica),
				records: Records{Bytes: [][]byte{rp.RecordBatches}, Ends: Ends{
					LogStart: broker.Offset(rp.LogStartOffset), HighWatermark: broker.Offset(rp.HighWatermark),
					LastStable: broker.Offset(rp.LastStableOffset),
				}},
			})
		}
	}
	return answer
}
