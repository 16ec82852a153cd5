// Package metadata is the committed truth about the cluster: facts, and the image that folding them in order gives.
//
// A fact states a result (this partition's leader, ISR and epochs are now these), never a command. Apply checks a
// fact's preconditions, merges it, and returns the change set; a stale fact is a recorded no-op, an unknown one stops
// the node. The package decides nothing, ranges over no map where order could matter, and touches no clock, random
// source, goroutine or disk. quorum feeds it committed entries; everybody reads the images it publishes.
//
// An Image is immutable: readers share it without locks and keep it as long as they like.
package metadata
