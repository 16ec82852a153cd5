package quorum

import (
	"errors"
	"fmt"
	"math"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/millrace-io/millrace/broker"
	"github.com/millrace-io/millrace/broker/metadata"
)

// recoverySkip is how many indexes a recovery leaves out. Entries that the survivor never saw gave identities away by their
// indexes (raft ids, broker epochs, replica ids); none of them may be given to something else.
const recoverySkip = 1 << 20

// Recovery is what becomes of a quorum that has lost its majority, made over to one survivor.
type Recovery struct {
	Last    broker.Index // of the survivor's log: what was decided behind it is lost
	Begins  broker.Index // of the snapshot that the quorum goes on from
	Removed []*metadata.Node
	Stays   []*metadata.Node // learners
}

// Recover makes a voter whose quorum is lost the sole voter of the same cluster. Everything in its log counts as committed. It
// is for a directory in which no node runs, and it is unsafe: what the lost majority committed without the survivor is
// lost, and if they still run, there are two clusters. The other voters are members no more, so whatever comes back of
// them is refused. With act false it tells what it would do, and writes no more than a start does.
func Recover(config Config, act bool) (r Recovery, err error) {
	s, img, err := openStorage(config.FS, config.Dir, config.openJournal)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.journal.Close()) }()
	if img, err = s.replay(img); err != nil {
		return r, err
	}
	r.Last = img.Index()
	var facts []*metadata.Fact
	conf := &raftpb.ConfState{Voters: []uint64{uint64(config.Raft)}}
	for _, m := range img.Nodes() {
		switch {
		case m.Raft == config.Raft:
			sole := *m
			sole.Voter = true
			facts = append(facts, metadata.NodeFact(&sole))
		case m.Voter:
			r.Removed = append(r.Removed, m)
			facts = append(facts, metadata.NodeRemovedFact(m))
		default:
			r.Stays = append(r.Stays, m)
			conf.Learners = append(conf.Learners, uint64(m.Raft))
		}
	}
	if self, ok := img.Node(config.Raft); !ok || !self.Voter {
		return r, fmt.Errorf("raft id %d is no voter: recover on a directory of a voter, which has everything that it helped to commit", config.Raft)
	}
	if len(r.Removed) == 0 {
		return r, fmt.Errorf("raft id %d is the only voter already: there is nothing to recover, start it", config.Raft)
	}
	r.Begins = r.Last + recoverySkip
	term := max(s.ballot.term, uint64(img.Term())) + 1
	next, changes, err := metadata.Fold(img, r.Begins, broker.Term(term), facts)
	if err != nil {
		return r, err
	}
	if len(changes.Stale) > 0 {
		return r, fmt.Errorf("the members cannot be changed: %s", changes.Stale[0].Reason)
	}
	if !act {
		return r, nil
	}
	// The vote first: a newer term without the snapshot is harmless, the snapshot's term without it is damage.
	if err := replaceInSpare(s.fs, raftDir(s.dir), "vote", ballot{term: term, commit: s.ballot.commit}.encode()); err != nil {
		return r, fmt.Errorf("save the term: %w", err)
	}
	_, err = writeSnapshot(s.fs, snapshotDir(s.dir), next, conf)
	return r, err
}

// replay folds the whole log behind the newest snapshot into its image.
func (s *storage) replay(img *metadata.Image) (*metadata.Image, error) {
	if s.journal.Last() <= s.newest.index {
		return img, nil
	}
	folding := metadata.Begin(img)
	for next := s.newest.index + 1; next <= s.journal.Last(); {
		entries, err := s.journal.Read(next, s.journal.Last()+1, math.MaxInt32)
		if err != nil {
			return nil, &DamagedError{Dir: raftDir(s.dir), Err: err}
		}
		for _, e := range entries {
			data := e.GetData()
			if e.GetType() != raftpb.EntryNormal {
				data = nil // The members are facts beside it.
			}
			if _, err := folding.Apply(broker.Index(e.GetIndex()), broker.Term(e.GetTerm()), data); err != nil {
				return nil, err
			}
			next = e.GetIndex() + 1
		}
	}
	img, _ = folding.Image()
	return img, nil
}
