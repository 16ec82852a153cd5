// Package golden holds a broker against Apache Kafka's: it asks both the same questions and compares the answers, field by
// field, in every version of every API that both list.
//
// A script (script*.go) is a list of requests with what clients send and what they should not: unknown topics, old epochs,
// offsets out of range, unknown groups, invalid configs. Both brokers are new and configured alike, so that the n-th
// answer of one has its pair in the n-th of the other. A Recorder is a proxy that keeps the frames of a client's real
// traffic; as two runs of a client never interleave alike, its fields are compared as sets of values (traffic.go).
//
// Answers are decoded with kmsg, and what may differ is in one table with the reason beside each row (allowed.go):
// random ids, times, addresses, texts of errors, and what this project does otherwise on purpose. Everything else that
// differs is a finding.
//
// The package never starts a broker; package compat does, and calls it.
package golden
