// Command compat runs other people's Kafka clients, unmodified and as their registries ship them, against a real millrace
// process, and prints what each of them can do: create a topic, produce with every codec it has, consume in a group
// through a rebalance, commit, resume, seek, and read a view and a rack-bound group whose tail is filtered, without error,
// hot loop or stuck position. It also runs the clients' own functional suites (suite.go, gosuites.go), Apache Kafka's
// command-line tools (tools.go), and two comparisons with a real Apache Kafka (goldens.go, traffic.go; package golden).
//
// The default is what the checks run, in minutes. -all is everything, -only NAME,NAME some of it, -report FILE the
// document, made of this run and of what earlier ones left. -install DIR, or MILLRACE_COMPAT_DIR, is where clients go.
// -over WAY,WAY says how the clients reach the broker (ways.go): over plain TCP, over TLS, with SASL, and as a
// cluster of three nodes, where every topic has three replicas, offsets too (cluster.go). -apache runs the Go
// suites against Apache Kafka, which tells what fails there too.
//
// Each client is driven by a small program below clients/, all of which speak one protocol:
//
//	DRIVER create  bootstrap=H:P topic=T partitions=N replicas=R
//	DRIVER produce bootstrap=H:P topic=T codec=none|gzip|snappy|lz4|zstd count=N    keys CODEC-00000 ... CODEC-(N-1)
//	DRIVER consume bootstrap=H:P topic=T group=G [rack=R]                           until SIGTERM; commits what it delivered
//	DRIVER read    bootstrap=H:P topic=T partition=P offset=O count=N               seeks, and ends after N records
//	DRIVER drain   bootstrap=H:P topic=T partition=P                                ends where the end offset is
//
// Each may get ca=FILE, the authority of a TLS listener; mechanism=PLAIN|SCRAM-SHA-512 user=U password=P, to
// authenticate; protocol=consumer, to have the coordinator assign (KIP-848); and transport=quic.
//
// On stdout they write one JSON object a line: {"event":"assigned","partitions":[0,2]}, all that the member owns now, and
// {"event":"record","partition":0,"offset":12,"key":"k"}. Stderr is kept for the report. A driver that cannot install is
// reported as skipped with the reason, never left out.
//
// This package never looks into a client; what it claims it sees from outside: the events, the committed offsets, the
// records read back, and the broker's request counters.
package main
