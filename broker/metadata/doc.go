// Package metadata is the committed truth about the cluster: facts, and the image that folding them in order gives.
//
// A fact states a result (this partition's leader, ISR and epochs are now these), never a command. Apply checks a
// fact's preconditions, merges it, and returns the change set; a stale fact is a recorded no-op, an unknown one stops
// the node. The package decides nothing, ranges over no map where order could matter, and touches no clock, random
// source, goroutine or disk. quorum feeds it committed entries; everybody reads the images it publishes.
//
// An Image is immutable: readers share it without locks and keep it as long as they like. Its collections are tables of
// 256 shards, and the next image shares every shard but those that the facts between them changed (RH20), so that a
// change costs the same in a cluster of a hundred thousand partitions as in a small one.
//
// To add a kind of fact: the message and its number in metadata.proto; a table in Image and NewImage, with its readers;
// a function that makes the fact in facts.go; a merge function, named in Apply's switch, that compares, puts, and notes
// the name in Changes; and its place in the order of Image.facts, without which snapshots would forget it.
package metadata
