// Command chaos proves the delivery contract on real processes. It builds cmd/millrace, puts load on it (idempotent
// producers, group consumers over QUIC and TCP, views, cutovers between plugin versions, topics made and deleted), ends it
// with SIGKILL at random moments, also while it starts or is stopped in the middle of something (SIGSTOP), and now and then with SIGTERM, deletes the chains' caches before every third start, and after
// each restart compares what clients see with five checkers:
//
//  1. log.go: every acknowledged record lies at the offset that was acknowledged, once, in its producer's order, and what
//     was read before reads the same.
//  2. oracle.go: a full read of each view and of each bound group is what docs/DELIVERY.md says, computed from a raw dump
//     of the log and the decision rows with code that shares nothing with delivery, plugins/window or the plugin.
//  3. letters.go: every dead-lettered offset has its letter, and nothing else has one.
//  4. table.go: of a compacted topic every record is at its offset, of each key the newest is there, and nothing that was
//     deleted comes back.
//  5. consumers.go: what group members received is in the filtered log, byte for byte; nothing that was visible below a
//     group's commit is missing; no acknowledged commit is forgotten.
//
// Checkers read only what clients see. A run is started with a seed, which decides every choice that the program makes; the
// moments at which the scheduler lets things happen are the machine's, so a replay repeats the plan and not the nanosecond.
//
// With -cluster there are three brokers, in network namespaces, under faults of every kind: trial.go is one such cluster and
// its verdict, faults*.go the catalogue, replicas.go, watch.go and linear.go three more checkers (ask.go asks what the last of
// them judges); docs/TESTING.md tells how to read the report.
//
//	go run ./internal/chaos -kills 50
//	go run ./internal/chaos -kills 50 -seed 42 -dir /tmp/chaos   # keep the data directory and the broker's log
package main
