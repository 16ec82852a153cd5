// Package mutant names the rules that a build for testing may switch off, one at a time, to show that the simulation
// notices their absence: a suite that finds no fault in a broken core proves nothing about a whole one.
//
// In a normal build Is is false at compile time and nothing of a mutant is left. With the build tag mutant, Choose picks
// one. Who calls it: the cores, at the rule that a mutant breaks, and internal/sim. It knows nothing of either.
package mutant

// Mutant is a broken rule. The numbers are those of the list that the rules were collected in.
type Mutant uint8

// The mutants.
const (
	NoEpochStart        Mutant = 1  // a replica may join the ISR below the start of the leader epoch
	CommittedISROnly    Mutant = 2  // the high watermark counts the committed ISR, not the maximal one
	NoMinISR            Mutant = 3  // the high watermark moves below min.insync.replicas
	NoPartitionEpoch    Mutant = 4  // the controller does not compare partition epochs
	NoBrokerEpoch       Mutant = 5  // the controller does not compare broker epochs
	LossyInELR          Mutant = 6  // a replica that lost bytes keeps its ELR seat
	CutToHighWatermark  Mutant = 7  // a new follower cuts at its high watermark
	StaleData           Mutant = 8  // data of an earlier subscription is appended
	FollowersKept       Mutant = 9  // what is known of followers survives a change of the leader epoch
	WrittenIsDurable    Mutant = 10 // what is written is acknowledged, not what is synced
	RaftSendsFirst      Mutant = 11 // raft messages leave before vote and entries are durable
	NoDirectorySync     Mutant = 12 // a renamed file's name is not synced
	SyncRetried         Mutant = 13 // a failed sync is tried again and believed
	DamageCut           Mutant = 14 // damage below the flush point is cut like a torn tail
	ProducersNotRebuilt Mutant = 15 // followers do not keep the idempotence state
	DuplicateAtOnce     Mutant = 16 // a retry is acknowledged before the original is committed
	WaitersKept         Mutant = 17 // who waits is answered although the leader epoch is over
	RollbackOnTimeout   Mutant = 19 // a proposed ISR is forgotten when no answer comes
	ELRKept             Mutant = 20 // the ELR is not cleared when the ISR is large enough
	NoGeneration        Mutant = 21 // a sync that began before a cut counts
	NoSubscription      Mutant = 22 // subscription ids are not compared
	NoNewReplicaID      Mutant = 23 // a replica is repaired under its old identity
	SubscribeIsAck      Mutant = 24 // a subscription counts as an acknowledgement
	LeaderNotDurable    Mutant = 25 // the high watermark leaves out the leader's own durable end
	HandOverAtOnce      Mutant = 26 // a subscription moves between streams without a handshake
	CutLeavesBytes      Mutant = 27 // a cut leaves the bytes behind it
	RollbackOnRefusal   Mutant = 28 // a proposed ISR is forgotten when the controller finds a member ineligible
	SeatLostOnRestart   Mutant = 29 // an unclean restart costs the ELR seat
	AppliedNotHead      Mutant = 30 // the controller decides without its own proposals under way
	RoleFromOldImage    Mutant = 31 // a node takes roles from an image older than its registration
)
