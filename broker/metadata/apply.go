package metadata

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata/metadatapb"
)

// Fact is one resulting state as the metadata log holds it.
type Fact = metadatapb.Fact

// Bounds of the metadata log.
const (
	// EntryBytesMax is the most that one entry may hold.
	EntryBytesMax = 256 << 10
	// FeatureLevel is the newest level that this program understands.
	FeatureLevel = 1
	// DeletedMillis is how long the image remembers that a topic was deleted.
	DeletedMillis = 24 * 60 * 60 * 1000
)

// ErrUnknownFact is matched by an UnreadableError for facts or fields that this program does not know. A node that meets
// one stops: going on without it would fork its image from the others'.
var ErrUnknownFact = errors.New("unknown fact")

// UnreadableError says that an entry cannot be folded in. The node stops.
type UnreadableError struct {
	Index broker.Index
	Err   error // matches ErrUnknownFact where a newer program would understand the entry
}

func (e *UnreadableError) Error() string {
	if errors.Is(e.Err, ErrUnknownFact) {
		return fmt.Sprintf("metadata entry %d was written by a newer program: %v; run that version on this node", e.Index, e.Err)
	}
	return fmt.Sprintf("metadata entry %d: %v", e.Index, e.Err)
}

func (e *UnreadableError) Unwrap() error { return e.Err }

// EncodeEntry returns the bytes of an entry that is a change of its own. Equal facts give equal bytes.
func EncodeEntry(facts []*Fact) ([]byte, error) { return encodeEntry(&metadatapb.Entry{Facts: facts}) }

func encodeEntry(entry *metadatapb.Entry) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(entry)
	if err != nil {
		return nil, fmt.Errorf("encode metadata entry: %w", err)
	}
	return b, nil
}

// DecodeEntry returns the facts of an entry, or an UnreadableError if any of them, or any field at any depth, is not
// known.
func DecodeEntry(index broker.Index, entry []byte) ([]*Fact, error) {
	e, err := decodeEntry(index, entry)
	return e.GetFacts(), err
}

func decodeEntry(index broker.Index, entry []byte) (*metadatapb.Entry, error) {
	var e metadatapb.Entry
	if err := proto.Unmarshal(entry, &e); err != nil {
		return nil, &UnreadableError{Index: index, Err: err}
	}
	if err := knownThroughout(&e); err != nil {
		return nil, &UnreadableError{Index: index, Err: err}
	}
	return &e, nil
}

// Folding folds committed entries, one behind the other, into one next image. It is used once.
type Folding struct{ draft *draft }

// Begin returns a folding whose entries follow img.
func Begin(img *Image) *Folding { return &Folding{draft: newDraft(img)} }

// Apply folds an entry in. An empty entry moves the index and the term alone; so does a part of a change that is not the
// last. It returns the facts whose preconditions failed: they changed nothing. The only error is an UnreadableError; the
// folding is of no use then.
func (f *Folding) Apply(index broker.Index, term broker.Term, entry []byte) ([]Stale, error) {
	e, err := decodeEntry(index, entry)
	if err != nil {
		return nil, err
	}
	before := len(f.draft.changes.Stale)
	if err := f.draft.take(index, term, e); err != nil {
		return nil, err
	}
	return f.draft.changes.Stale[before:], nil
}

// Image returns the image behind the last entry, with what all of them changed.
func (f *Folding) Image() (*Image, Changes) { return f.draft.finish() }

// Apply folds one committed entry into img: a Folding of one.
func Apply(img *Image, index broker.Index, term broker.Term, entry []byte) (*Image, Changes, error) {
	folding := Begin(img)
	if _, err := folding.Apply(index, term, entry); err != nil {
		return nil, Changes{}, err
	}
	next, changes := folding.Image()
	return next, changes, nil
}

// Fold folds a whole change in whose first entry has the given index: what applying each of the entries of EncodeChange
// gives. Facts that are decoded already, as the controller's own proposals are, need no other way.
func Fold(img *Image, index broker.Index, term broker.Term, facts []*Fact) (*Image, Changes, error) {
	d := newDraft(img)
	d.next.begun = begun{}
	last := index + broker.Index(max(1, len(Split(facts)))) - 1
	if err := d.fold(index, last, term, facts); err != nil {
		return nil, Changes{}, err
	}
	next, changes := d.finish()
	return next, changes, nil
}

// stale is the verdict on a fact that came too late.
type stale string

func (s stale) Error() string { return string(s) }

func (d *draft) fact(i int, fact *Fact) error {
	err := d.merge(fact)
	var late stale
	if errors.As(err, &late) && !d.loading {
		d.changes.Stale = append(d.changes.Stale, Stale{Index: d.index, Fact: i, Reason: string(late)})
		return nil
	}
	return err
}

func (d *draft) merge(fact *Fact) error {
	switch f := fact.GetKind().(type) {
	case *metadatapb.Fact_Cluster:
		return d.cluster(f.Cluster)
	case *metadatapb.Fact_Node:
		return d.node(f.Node)
	case *metadatapb.Fact_BrokerRegistration:
		return d.registration(f.BrokerRegistration)
	case *metadatapb.Fact_BrokerState:
		return d.brokerState(f.BrokerState)
	case *metadatapb.Fact_Topic:
		return d.topic(f.Topic)
	case *metadatapb.Fact_TopicDeleted:
		return d.topicDeleted(f.TopicDeleted)
	case *metadatapb.Fact_Partition:
		return d.partition(f.Partition)
	case *metadatapb.Fact_Config:
		return d.config(f.Config)
	case *metadatapb.Fact_PluginVersion:
		return d.pluginVersion(f.PluginVersion)
	case *metadatapb.Fact_Binding:
		return d.binding(f.Binding)
	case *metadatapb.Fact_Row:
		return d.row(f.Row)
	case *metadatapb.Fact_RowOffsets:
		return d.rowOffsets(f.RowOffsets)
	case *metadatapb.Fact_Origin:
		return d.origin(f.Origin)
	case *metadatapb.Fact_View:
		return d.view(f.View)
	case *metadatapb.Fact_ProducerIdBlock:
		return d.producerIDBlock(f.ProducerIdBlock)
	case *metadatapb.Fact_Quota:
		return d.quota(f.Quota)
	case *metadatapb.Fact_FeatureLevel:
		return d.featureLevel(f.FeatureLevel)
	case *metadatapb.Fact_AccessRule:
		return d.accessRule(f.AccessRule)
	case *metadatapb.Fact_ScramCredential:
		return d.scramCredential(f.ScramCredential)
	default:
		return fmt.Errorf("%w: no kind that feature level %d has", ErrUnknownFact, FeatureLevel)
	}
}

// knownThroughout returns an error if m or a message inside it has a field that this program does not know.
func knownThroughout(m proto.Message) error { return knownIn(m.ProtoReflect()) }

func knownIn(m protoreflect.Message) error {
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("%w: a field of %s is not known", ErrUnknownFact, m.Descriptor().FullName())
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.Message() == nil || !m.Has(field) {
			continue
		}
		if !field.IsList() {
			if err := knownIn(m.Get(field).Message()); err != nil {
				return err
			}
			continue
		}
		list := m.Get(field).List()
		for j := range list.Len() {
			if err := knownIn(list.Get(j).Message()); err != nil {
				return err
			}
		}
	}
	return nil
}
