package golden

import (
	"context"
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// answered is an exchange with an answer.
func answered(label string, resp kmsg.Response) Exchange {
	body := []byte{0, 0, 0, 7}
	if resp.IsFlexible() {
		body = append(body, 0)
	}
	return Exchange{Label: label, Key: resp.Key(), Version: resp.GetVersion(), Response: resp.AppendTo(body)}
}

func heartbeatAnswer(code int16, throttle int32) Exchange {
	resp := kmsg.NewPtrHeartbeatResponse()
	resp.Version, resp.ErrorCode, resp.ThrottleMillis = 4, code, throttle
	return answered("good", resp)
}

// TestDifferencesAreFindingsUnlessTheTableAllowsThem compares an error code, a throttle time, and a closed connection.
func TestDifferencesAreFindingsUnlessTheTableAllowsThem(t *testing.T) {
	if found := Compare(heartbeatAnswer(0, 0), heartbeatAnswer(0, 0)); len(found) != 0 {
		t.Errorf("equal answers: %+v", found)
	}
	if found := Compare(heartbeatAnswer(25, 0), heartbeatAnswer(22, 0)); len(found) != 1 || found[0].Allowed != "" || found[0].Path != "Heartbeat.ErrorCode" {
		t.Errorf("codes 25 and 22: %+v", found)
	}
	if found := Compare(heartbeatAnswer(0, 0), heartbeatAnswer(0, 5)); len(found) != 1 || found[0].Allowed == "" {
		t.Errorf("a throttle time: %+v", found)
	}
	closed := heartbeatAnswer(0, 0)
	closed.Response = nil
	if found := Compare(closed, heartbeatAnswer(0, 0)); len(found) != 1 || found[0].Allowed != "" {
		t.Errorf("a closed connection: %+v", found)
	}
	pair := Pair{Kafka: heartbeatAnswer(25, 0), Ours: heartbeatAnswer(22, 0), Found: Compare(heartbeatAnswer(25, 0), heartbeatAnswer(22, 0))}
	if Differing([]Pair{pair}) != 1 {
		t.Error("a finding is not counted")
	}
}

// TestElementsWhoseOrderSaysNothingArePaired holds lists of groups in two orders to be equal, and a missing group to be none.
func TestElementsWhoseOrderSaysNothingArePaired(t *testing.T) {
	list := func(names ...string) Exchange {
		resp := kmsg.NewPtrListGroupsResponse()
		resp.Version = 5
		for _, name := range names {
			resp.Groups = append(resp.Groups, kmsg.ListGroupsResponseGroup{Group: name})
		}
		return answered("all", resp)
	}
	if found := Compare(list("a", "b"), list("b", "a")); len(found) != 0 {
		t.Errorf("two orders: %+v", found)
	}
	if found := Compare(list("a", "b"), list("a")); len(found) != 1 || found[0].Allowed != "" {
		t.Errorf("a missing group: %+v", found)
	}
}

func TestTrafficComparesTheValuesThatAFieldHad(t *testing.T) {
	run := Traffic{Client: "c", Kafka: []Exchange{heartbeatAnswer(0, 0)}, Ours: []Exchange{heartbeatAnswer(0, 0), heartbeatAnswer(27, 0)}}
	if pairs, _ := run.Compare(); len(pairs) != 1 || Differing(pairs) != 0 || len(pairs[0].Found) != 1 {
		t.Errorf("a rebalance that only one run saw: %+v", pairs)
	}
	epoch := func(member int32) Exchange {
		resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
		resp.MemberEpoch = member
		return answered("", resp)
	}
	for _, tc := range []struct {
		ours      []Exchange
		differing int
	}{
		{[]Exchange{epoch(-1), epoch(1), epoch(9)}, 0}, {[]Exchange{epoch(-1), epoch(2), epoch(10)}, 0}, {[]Exchange{epoch(-1), epoch(3), epoch(9)}, 1},
	} {
		run = Traffic{Client: "c", Kafka: []Exchange{epoch(10), epoch(2), epoch(-1)}, Ours: tc.ours}
		if pairs, _ := run.Compare(); Differing(pairs) != tc.differing {
			t.Errorf("epochs of a group: %+v, want %d that differ", pairs, tc.differing)
		}
	}
	leave := func(code int16) Exchange {
		resp := kmsg.NewPtrLeaveGroupResponse()
		resp.ErrorCode = code
		return answered("", resp)
	}
	run = Traffic{Client: "c", Kafka: []Exchange{leave(0)}, Ours: []Exchange{leave(0), leave(25), heartbeatAnswer(0, 0)}}
	pairs, alone := run.Compare()
	if len(pairs) != 1 || Differing(pairs) != 1 || len(alone) != 1 {
		t.Errorf("an error that Kafka never gave: %+v, alone %v", pairs, alone)
	}
}

// TestRecorderKeepsWhatPasses answers one request by hand behind a recorder.
func TestRecorderKeepsWhatPasses(t *testing.T) {
	broker, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = broker.Close() }()
	recorder, err := NewRecorder(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	recorder.Serve(broker.Addr().String())
	answer := heartbeatAnswer(25, 0).Response
	served := make(chan error, 1)
	recorder.group.Go("broker", func(context.Context) error {
		conn, err := broker.Accept()
		if err != nil {
			served <- err
			return nil
		}
		if _, err = readFrame(conn); err == nil {
			_, err = conn.Write(append([]byte{0, 0, 0, byte(len(answer))}, answer...))
		}
		served <- err
		return nil
	})
	s := &script{ctx: t.Context(), address: recorder.Address(), next: 7}
	defer s.close()
	got, err := s.ask("", 4, kmsg.NewPtrHeartbeatRequest())
	if err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	kept := recorder.Take()
	if got.(*kmsg.HeartbeatResponse).ErrorCode != 25 || len(kept) != 1 || kept[0].Key != 12 || kept[0].Version != 4 {
		t.Errorf("answer %+v, kept %+v", got, kept)
	}
	if err := recorder.Close(); err != nil {
		t.Error(err)
	}
}
