// Package group is the consumer group protocols as a pure core: one Group value holds the members, the generation or
// epochs, and the committed offsets of one group, takes events with the time, and returns effects. It speaks the
// rules of Apache Kafka's coordinator: member ids handed out before they count (KIP-394), static members and their
// fencing (KIP-345), protocol selection, rebalance and session timeouts, skipped assignments (KIP-814), the expiry of
// offsets (KIP-211, KIP-496).
//
// A request that must wait (JoinGroup until every member has come, SyncGroup until the leader's assignment is stored)
// is parked under the caller's Ticket and answered by an effect of a later event. What must survive a crash leaves as
// a Store effect, and takes effect only when OnStored tells that it is committed.
//
// It never touches a clock, a log, a lock or a random source: the shell (coordinator) passes Unix milliseconds that
// never go back, makes member ids, stores snapshots, and owns each Group under its lock. The order of members is the
// order in which they joined, so the same events give the same effects.
//
//	         first join                 all joined, or time is up            leader's assignment stored
//	Empty ───────────────► PreparingRebalance ───────────────► CompletingRebalance ───────────────► Stable
//	  ▲                        │   ▲                                 │                                 │
//	  └── nobody is left ──────┘   └── join, leave, expiry, lost sync┴─────────────────────────────────┘
//
// Dead marks a group whose deletion is being stored.
//
// # Consumer groups
//
// A group of the consumer protocol (KIP-848) has no leader and no rounds: every member sends heartbeats, and learns from
// the answers what it is to have (heartbeat.go). A change of members, subscriptions or topics raises the group epoch;
// the next heartbeat computes every member's target (consumers.go, assignor.go); each member is taken to its target in
// steps that wait for what it, and others, still have (reconcile.go). What the log has not got, and who waits for that,
// is in the ledger (ledger.go). Members of both protocols in one group, as Kafka has them while a group is migrated
// online, are not spoken: a group changes its protocol when it has no members, and keeps its offsets.
//
//	        a member joins,                a heartbeat                  everybody is at
//	Empty ──────────────────► Assigning ───────────────► Reconciling ────────────────────► Stable
//	  ▲     leaves, changes       ▲    computes targets       │            its target         │
//	  └──── nobody is left ───────┴───────────────────────────┴─────── a change ──────────────┘
package group
