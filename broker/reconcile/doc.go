// Package reconcile says what a node must do when the metadata changes: from a change set with the two images around it,
// or from two images alone, it makes the ordered, idempotent actions for this node. Both ways give the same actions; the
// full difference is the start-up path and the test oracle.
//
// Opening a replica is not a role: it follows the image alone. Leading and following are roles, and a node takes none
// from an image that is older than its own registration, which could name it leader of an epoch that its last
// incarnation had (RC13).
//
// The package decides nothing about the cluster and carries nothing out: node does. It has no I/O, clock, goroutine or
// lock.
package reconcile
