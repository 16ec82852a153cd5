package sim

import (
	"fmt"
	"io"

	"github.com/millrace-io/millrace/internal/mutant"
)

// Trial is a mutant and what is known of it without trying.
type Trial struct {
	Mutant mutant.Mutant
	Name   string
	// Excused says why nothing is noticed while the rest of the protocol is whole; empty: somebody must notice.
	Excused string
}

// Trials lists every mutant.
var Trials = []Trial{
	{mutant.NoEpochStart, "no check of the leader epoch's start", ""},
	{mutant.CommittedISROnly, "high watermark over the committed ISR", ""},
	{mutant.NoMinISR, "high watermark without min.insync.replicas", ""},
	{mutant.NoPartitionEpoch, "partition epochs not compared", ""},
	{mutant.NoBrokerEpoch, "broker epochs not compared", "replica and subscription ids cover it while a restart loses nothing that is synced"},
	{mutant.LossyInELR, "a replica that lost bytes stays in the ELR", ""},
	{mutant.CutToHighWatermark, "followers cut at their high watermark", ""},
	{mutant.StaleData, "data of an earlier subscription appended", ""},
	{mutant.FollowersKept, "followers' ends kept over leader epochs", ""},
	{mutant.WrittenIsDurable, "written counts as durable", ""},
	{mutant.RaftSendsFirst, "raft sends before it persists", ""},
	{mutant.NoDirectorySync, "renamed files not synced", ""},
	{mutant.SyncRetried, "a failed sync believed", ""},
	{mutant.DamageCut, "damage cut like a torn tail", ""},
	{mutant.ProducersNotRebuilt, "idempotence state not kept by followers", ""},
	{mutant.DuplicateAtOnce, "retries acknowledged before the original", ""},
	{mutant.WaitersKept, "waiters answered over leader epochs", ""},
	{mutant.RollbackOnTimeout, "proposed ISR forgotten on a timeout", ""},
	{mutant.ELRKept, "ELR not cleared", ""},
	{mutant.NoGeneration, "a sync from before a cut counts", ""},
	{mutant.NoSubscription, "subscription ids not compared", ""},
	{mutant.NoNewReplicaID, "repair under the old identity", ""},
	{mutant.SubscribeIsAck, "a subscription counts as an acknowledgement", ""},
	{mutant.LeaderNotDurable, "high watermark without the leader's durable end", ""},
	{mutant.HandOverAtOnce, "hand-over without waiting", ""},
	{mutant.CutLeavesBytes, "a cut leaves the bytes behind it", ""},
	{mutant.RollbackOnRefusal, "proposed ISR forgotten on INELIGIBLE_REPLICA", ""},
	{mutant.SeatLostOnRestart, "an unclean restart costs the ELR seat", ""},
	{mutant.AppliedNotHead, "decisions on the applied image", ""},
	{mutant.RoleFromOldImage, "roles from an image before the registration", ""},
}

// TryMutants breaks every rule in turn, or only one, and plays the scenarios and up to so many seeds, until one notices. It
// prints who did, as what, and the command that plays it again, and reports whether every mutant that has no excuse was
// noticed.
func TryMutants(out io.Writer, seeds uint64, only mutant.Mutant) bool {
	all := make([]uint64, seeds)
	for i := range all {
		all[i] = uint64(i) + 1
	}
	good := true
	fmt.Fprintf(out, "| mutant | rule broken | noticed by | as | again |\n|---|---|---|---|---|\n")
	for _, t := range Trials {
		if only != 0 && only != t.Mutant {
			continue
		}
		mutant.Choose(t.Mutant)
		by, as, again := notice(all)
		switch {
		case as != "":
			again = fmt.Sprintf("`%s -mutant %d`", again, t.Mutant)
		case t.Excused != "":
			by, as = fmt.Sprintf("none of %d seeds", seeds), t.Excused
		default:
			by, good = fmt.Sprintf("NOT NOTICED by %d seeds", seeds), false
		}
		fmt.Fprintf(out, "| m%d | %s | %s | %s | %s |\n", t.Mutant, t.Name, by, as, again)
	}
	mutant.Choose(0)
	return good
}

// notice returns who noticed first, as what, and what plays it again.
func notice(seeds []uint64) (by, as, again string) {
	for _, s := range Scenarios {
		if r := s.Play(nil); r.Violation != nil {
			return "scenario " + s.Name, r.Violation.Kind, ReplayScenario(s.Name)
		}
	}
	for r := range PlayAll(seeds) {
		if r.Violation != nil {
			return fmt.Sprintf("seed %d", r.Seed), r.Violation.Kind, Replay(r.Seed)
		}
	}
	return "", "", ""
}
