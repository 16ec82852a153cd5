package controller

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/millrace-io/millrace/broker"
)

// Requests travel to the leader, and replies back, as JSON in which a type goes by its name in this package. A field that
// the other side does not know is an error there: it would decide something else than was asked.

// carried is every request and reply. A new one is named here.
func carried() []any {
	return []any{
		RegisterBroker{}, UnfenceBroker{}, FenceBroker{}, StopBroker{}, DrainBroker{}, DecommissionBroker{}, ReportFailedReplicas{}, ReportSpace{}, NoteHeld{}, Tidy{}, JoinNode{}, AlterMembers{},
		AlterPartition{}, AlterReassignments{}, CreateTopic{}, CreatePartitions{}, DeleteTopic{}, ElectLeaders{}, AlterConfigs{}, AllocateProducerIDs{},
		AlterQuota{}, CreateAccessRules{}, DeleteAccessRules{}, AlterCredentials{},
		PutPlugin{}, CreateBinding{}, UpdateBinding{}, ResumeBinding{}, DeleteBinding{}, ProposeFrom{}, ProposeTrip{}, ProposeOrigin{},
		CreateView{}, DeleteView{},

		BrokerRegistered{}, BrokerStanding{}, BrokerDecommissioned{}, ReplicasFailed{}, SpaceReported{}, HeldNoted{}, Tidied{}, NodeJoined{}, MembersAltered{},
		PartitionsAltered{}, ReassignmentsAltered{}, TopicCreated{}, PartitionsCreated{}, TopicRemoved{}, LeadersElected{}, ConfigsAltered{}, ProducerIDs{},
		QuotaAltered{}, AccessRulesCreated{}, AccessRulesDeleted{}, CredentialsAltered{},
		PluginPut{}, BindingMade{}, BindingRemoved{}, OffsetPlaced{}, ViewMade{}, ViewRemoved{},
	}
}

// envelope is a request, or the reply or refusal that answers it.
type envelope struct {
	Kind    string          `json:"kind,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
	Code    broker.Code     `json:"code,omitempty"`
	Message string          `json:"message,omitempty"`
	Index   broker.Index    `json:"index,omitempty"` // of an answer: what it rests on is in the image of this index
}

// EncodeRequest returns a request as it travels to the leader.
func EncodeRequest(r Request) ([]byte, error) { return encode(r, 0) }

// DecodeRequest reads what EncodeRequest wrote.
func DecodeRequest(b []byte) (Request, error) {
	value, _, err := decode(b)
	if err != nil {
		return nil, err
	}
	if r, ok := value.(Request); ok {
		return r, nil
	}
	return nil, fmt.Errorf("a %T is no request", value)
}

// EncodeAnswer returns an answer as it travels back: a reply, or why there is none. Whoever acts on it waits for the image
// of index first.
func EncodeAnswer(reply Reply, refusal error, index broker.Index) ([]byte, error) {
	if refusal == nil {
		return encode(reply, index)
	}
	return json.Marshal(envelope{Code: broker.CodeOf(refusal), Message: refusal.Error(), Index: index})
}

// DecodeAnswer reads what EncodeAnswer wrote; a refusal is a *broker.Error. broken says that the bytes are no answer.
func DecodeAnswer(b []byte) (reply Reply, index broker.Index, refusal *broker.Error, broken error) {
	value, e, err := decode(b)
	if err != nil {
		return nil, 0, nil, err
	}
	if e.Kind == "" {
		return nil, e.Index, &broker.Error{Code: e.Code, Message: e.Message}, nil
	}
	if reply, ok := value.(Reply); ok {
		return reply, e.Index, nil, nil
	}
	return nil, 0, nil, fmt.Errorf("a %T is no reply", value)
}

func encode(value any, index broker.Index) ([]byte, error) {
	body, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", value, err)
	}
	return json.Marshal(envelope{Kind: reflect.TypeOf(value).Name(), Body: body, Index: index})
}

func decode(b []byte) (any, envelope, error) {
	var e envelope
	if err := strictly(b, &e); err != nil {
		return nil, e, err
	}
	if e.Kind == "" {
		if e.Code == broker.None {
			return nil, e, errors.New("neither a reply nor a refusal")
		}
		return nil, e, nil
	}
	for _, example := range carried() {
		if t := reflect.TypeOf(example); t.Name() == e.Kind {
			value := reflect.New(t)
			err := strictly(e.Body, value.Interface())
			return value.Elem().Interface(), e, err
		}
	}
	return nil, e, fmt.Errorf("this program knows no %q: run programs of neighbouring releases", e.Kind)
}

func strictly(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("decode %T: %w", into, err)
	}
	return nil
}
