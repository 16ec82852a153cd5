// Package quorum keeps the metadata log: it drives a raft.RawNode of go.etcd.io/raft/v3 from one loop, stores its log and
// snapshots, folds committed entries into images, publishes them, and lets controller decide while this node leads.
//
// One turn of the loop is one Ready: vote file if term or vote changed, then entries, synced, then messages, then apply,
// then one new image and its change set, then the answers to those who asked. Nothing is answered, and nothing applied,
// before the entries of its Ready are on stable storage. The image lives in memory only: a restart is the newest snapshot
// and the committed log behind it.
//
//	raft/vote                           term and vote, replaced whole before any entry of the term is written
//	raft/log/                           a commitlog: one entry is one batch, offset = raft index, leader epoch = term
//	raft/snapshots/<index>-<term>.snap  two are kept; the log starts right behind the older one
//
// While it leads, a node decides on its head image: the applied image with its own proposals folded in (RC12). It begins
// when the first entry of its own term is applied, and ends with the term. A damaged log or vote ends the process: what
// this node promised to others cannot be known any more, so it joins again under a new raft id (RH4).
//
// Open, Run and Submit are called by node; everyone reads Image. The loop's goroutine owns all state but the published
// image.
package quorum
