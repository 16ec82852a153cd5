// Command bench measures brokers side by side with one load. It installs and starts each of them itself, as a process of
// its own with an empty directory on a real disk: this tree's broker, Apache Kafka from its Maven jars, NATS JetStream
// from its Go module, and franz-go's kfake in memory; any other Kafka-protocol broker by its address.
//
//	go run ./internal/bench [-systems millrace,kafka,nats,kfake] [-scenarios load,sync,...] [-rounds 3] [-idle 30s] [-quick]
//	go run ./internal/bench -cluster [-systems millrace,kafka,nats] [-scenarios r3-produce,r3-sync,...]
//	go run ./internal/bench -engine
//
// With -cluster a system is three brokers, everything has three replicas, and data lie in memory unless -dir says otherwise.
// Systems take turns within a round, so that a slow minute meets each of them; before each turn there is a sync, a rest,
// and the controls: what the machine does without any broker. Figures are medians over rounds; ratios are of medians,
// with the least and greatest of a round. It prints the bounds that the product is held to with what came of them, and
// says where a control moved too far for a figure to mean anything. What was measured so far is written after each turn,
// so that a run that is cut short leaves its JSON. docs/TESTING.md says how to read it. With -engine it runs hostile
// plugins in this process instead.
//
// One goroutine drives; those that load belong to task groups and end with their scenario. The files:
//
//	main.go       flags                        system.go       what a broker and a driver are
//	visits.go     rounds, turns, rest          speed.go        load and sync
//	scale.go      start, idle, partitions      plugins.go      reading through plugins
//	hostile.go    hostile guests in a broker   guests.go       -engine
//	crowd.go      many connections
//	produce.go, consume.go, sync.go, openloop.go               franz-go's load
//	millrace.go, kafka.go, nats.go, kfake.go   the brokers     workshop.go, process.go   installing and running them
//	control.go    the machine                  histogram.go    latencies
//	measure.go, ratio.go, reach.go, report.go  figures, ratios, bounds, tables, JSON
//	judge.go      wazero alone                 profile.go      CPU profiles
//	trio.go, triomillrace.go, triokafka.go, trionats.go        clusters of three
//	trioload.go   load on clusters             triostrike.go, triofail.go   leaders that die
//	trioscale.go  many partitions              triocatchup.go, rawstream.go a follower far behind
//	trioreach.go  bounds of clusters           triocut.go      hosts of their own, with links
//
// Beside it: kfake and host are brokers as processes, plugin is the guest, and nats is a module of its own with the
// driver for NATS and the pinned server.
package main
