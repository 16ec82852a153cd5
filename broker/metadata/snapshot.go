package metadata

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata/metadatapb"
)

// A snapshot is the image as the facts that make it:
//
//	0   8  magic "MRSNAPSH"
//	8   2  format version, little-endian
//	10  …  header: uvarint length, SnapshotHeader
//	…   …  facts in key order: uvarint length, Fact; as many as the header counts
//	n-4 4  CRC32C of everything before, little-endian
const (
	snapshotMagic   = "MRSNAPSH"
	snapshotVersion = 1
	preambleBytes   = len(snapshotMagic) + 2
)

// ErrNewerFormat says that a file was written by a newer program.
var ErrNewerFormat = errors.New("written by a newer program")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ConfState is the membership of the metadata quorum, as raft has it.
type ConfState struct {
	Voters, Learners             []broker.RaftID
	VotersOutgoing, LearnersNext []broker.RaftID
	AutoLeave                    bool
}

// EncodeSnapshot returns img as a snapshot. Equal images give equal bytes. An image midway in a change has none.
func EncodeSnapshot(img *Image, conf ConfState) ([]byte, error) {
	if img.Midway() {
		return nil, errors.New("a snapshot cannot hold the first parts of a change")
	}
	return encodeSnapshot(img, conf)
}

func encodeSnapshot(img *Image, conf ConfState) ([]byte, error) {
	facts := img.facts()
	header := &metadatapb.SnapshotHeader{
		Index: uint64(img.index), Term: uint64(img.term), FeatureLevel: img.cluster.FeatureLevel, Count: uint64(len(facts)),
		ConfState: &metadatapb.ConfState{
			Voters: rawRaftIDs(conf.Voters), Learners: rawRaftIDs(conf.Learners),
			VotersOutgoing: rawRaftIDs(conf.VotersOutgoing), LearnersNext: rawRaftIDs(conf.LearnersNext), AutoLeave: conf.AutoLeave,
		},
	}
	out := binary.LittleEndian.AppendUint16([]byte(snapshotMagic), snapshotVersion)
	out, err := appendDelimited(out, header)
	if err != nil {
		return nil, err
	}
	for _, fact := range facts {
		if out, err = appendDelimited(out, fact); err != nil {
			return nil, err
		}
	}
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli)), nil
}

// DecodeSnapshot returns the image and the membership that a snapshot holds.
func DecodeSnapshot(snapshot []byte) (*Image, ConfState, error) {
	body, err := snapshotBody(snapshot)
	if err != nil {
		return nil, ConfState{}, err
	}
	var header metadatapb.SnapshotHeader
	if body, err = readDelimited(body, &header); err != nil {
		return nil, ConfState{}, fmt.Errorf("snapshot header: %w", err)
	}
	if header.GetFeatureLevel() > FeatureLevel {
		return nil, ConfState{}, fmt.Errorf("snapshot at feature level %d: %w", header.GetFeatureLevel(), ErrNewerFormat)
	}
	d := newDraft(NewImage())
	d.index, d.term, d.loading = broker.Index(header.GetIndex()), broker.Term(header.GetTerm()), true
	for i := range header.GetCount() {
		var fact metadatapb.Fact
		if body, err = readDelimited(body, &fact); err == nil {
			err = d.merge(&fact)
		}
		if err != nil {
			return nil, ConfState{}, fmt.Errorf("snapshot fact %d of %d: %w", i, header.GetCount(), err)
		}
	}
	if len(body) != 0 {
		return nil, ConfState{}, fmt.Errorf("snapshot has %d bytes behind its last fact", len(body))
	}
	img, _ := d.finish()
	conf := header.GetConfState()
	return img, ConfState{
		Voters: raftIDs(conf.GetVoters()), Learners: raftIDs(conf.GetLearners()),
		VotersOutgoing: raftIDs(conf.GetVotersOutgoing()), LearnersNext: raftIDs(conf.GetLearnersNext()), AutoLeave: conf.GetAutoLeave(),
	}, nil
}

func snapshotBody(snapshot []byte) ([]byte, error) {
	if len(snapshot) < preambleBytes+crc32.Size || string(snapshot[:len(snapshotMagic)]) != snapshotMagic {
		return nil, errors.New("not a metadata snapshot")
	}
	if v := binary.LittleEndian.Uint16(snapshot[len(snapshotMagic):]); v > snapshotVersion {
		return nil, fmt.Errorf("snapshot format %d: %w", v, ErrNewerFormat)
	}
	body, sum := snapshot[:len(snapshot)-crc32.Size], snapshot[len(snapshot)-crc32.Size:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(sum) {
		return nil, errors.New("snapshot checksum does not match its bytes")
	}
	return body[preambleBytes:], nil
}

// Equal reports whether two images say the same of everything, index and term included.
func Equal(a, b *Image) bool { return a == b || Hash(a) == Hash(b) }

// Hash is a digest of everything that an image says.
func Hash(img *Image) [sha256.Size]byte {
	encoded, err := encodeSnapshot(img, ConfState{})
	if err == nil && img.Midway() {
		var parts []byte
		parts, err = encodeEntry(&metadatapb.Entry{Facts: img.begun.facts, Part: img.begun.parts, More: true})
		encoded = append(encoded, parts...)
	}
	if err != nil {
		// Only a string that is not UTF-8 gets here, which no decoded fact has; unequal to itself is the loud answer.
		return sha256.Sum256(fmt.Appendf(nil, "%p", img))
	}
	return sha256.Sum256(encoded)
}

// facts lists the facts that make the image, in key order: what others refer to comes first.
func (m *Image) facts() []*Fact {
	var facts []*Fact
	add := func(f *Fact) { facts = append(facts, f) }
	if !m.cluster.ID.IsZero() {
		add(ClusterFact(m.cluster.ID))
	}
	if m.cluster.FeatureLevel > 0 {
		add(FeatureLevelFact(m.cluster.FeatureLevel))
	}
	for _, n := range m.Nodes() {
		add(NodeFact(n))
	}
	for _, r := range m.Brokers() {
		add(RegistrationFact(r))
		if !r.Fenced || r.Stopping {
			add(BrokerStateFact(r))
		}
	}
	for _, t := range m.topics.values(compareTopic) {
		add(TopicFact(t))
		for _, p := range m.partitions.get(t.ID) {
			add(PartitionFact(p))
		}
	}
	for _, t := range m.DeletedTopics() {
		add(TopicDeletedFact(t))
	}
	for _, resource := range m.configs.sorted(compareResource) {
		for _, name := range slices.Sorted(maps.Keys(m.configs.get(resource))) {
			add(ConfigFact(resource, name, m.configs.get(resource)[name]))
		}
	}
	for _, v := range m.Plugins() {
		add(PluginVersionFact(v))
	}
	for _, b := range m.Bindings() {
		add(BindingFact(b))
		for _, r := range m.rows.get(b.ID) {
			add(RowFact(r))
			if len(r.From) > 0 {
				add(RowOffsetsFact(b.ID, r.ID, placedIn(r.From)))
			}
			if len(r.Tripped) > 0 {
				add(RowTrippedFact(b.ID, r.ID, placedIn(r.Tripped)))
			}
		}
		if len(m.origins.get(b.ID)) > 0 {
			add(OriginFact(b.ID, placedIn(m.origins.get(b.ID))))
		}
	}
	for _, v := range m.Views() {
		add(ViewFact(v))
	}
	for entity, bounds := range m.quotas.All() {
		for _, b := range bounds {
			add(QuotaFact(entity, b.Key, b.Value))
		}
	}
	for rule := range m.AccessRules() {
		add(AccessRuleFact(rule))
	}
	for _, c := range m.ScramCredentials() {
		add(ScramCredentialFact(c))
	}
	if m.nextProducerID > 0 {
		add(ProducerIDBlockFact(m.nextProducerID, 0, broker.NoNode, 0))
	}
	return facts
}

func appendDelimited(out []byte, m proto.Message) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return append(protowire.AppendVarint(out, uint64(len(b))), b...), nil
}

func readDelimited(in []byte, m proto.Message) (rest []byte, err error) {
	size, n := protowire.ConsumeVarint(in)
	if n < 0 {
		return nil, protowire.ParseError(n)
	}
	if size > uint64(len(in)-n) {
		return nil, errors.New("a length reaches past the end")
	}
	if err := proto.Unmarshal(in[n:n+int(size)], m); err != nil {
		return nil, err
	}
	return in[n+int(size):], knownThroughout(m)
}

func rawRaftIDs(ids []broker.RaftID) []uint64 {
	raw := make([]uint64, len(ids))
	for i, id := range ids {
		raw[i] = uint64(id)
	}
	return raw
}

func raftIDs(raw []uint64) []broker.RaftID {
	if len(raw) == 0 {
		return nil
	}
	ids := make([]broker.RaftID, len(raw))
	for i, id := range raw {
		ids[i] = broker.RaftID(id)
	}
	return ids
}

// compareVersions orders plugin versions by name, then by the order of upload.
func compareVersions(a, b *PluginVersion) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Created, b.Created), cmp.Compare(a.Version, b.Version))
}
