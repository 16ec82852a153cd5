// Package group is the classic consumer group protocol as a pure core: one Group value holds the members, the
// generation and the committed offsets of one group, takes events with the time, and returns effects. It speaks the
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
package group
