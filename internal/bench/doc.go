// Command bench measures brokers side by side with one load. It installs and starts each of them itself, as a process of
// its own with an empty directory on a real disk: this tree's broker, Apache Kafka from its Maven jars, and franz-go's
// kfake in memory; any other Kafka-protocol broker by its address.
//
//	go run ./internal/bench [-systems millrace,kafka,kfake] [-scenarios load,sync] [-rounds 3] [-idle 30s] [-quick]
//	go run ./internal/bench -engine
//
// Systems take turns within a round, so that a slow minute meets each of them; before each turn there is a sync, half a
// minute of rest, and the controls: what the machine does without any broker. Figures are medians over rounds; ratios are
// of medians, with the least and greatest of a round. It never judges: it prints, and says where a control moved too far
// for a figure to mean anything. What was measured so far is written after each turn, so that a run that is cut short
// leaves its JSON. With -engine it runs hostile plugins in this process instead.
//
// One goroutine drives; those that load belong to task groups and end with their scenario. The files:
//
//	main.go      flags                 system.go    what a broker is      visits.go   rounds, turns, rest
//	speed.go     load and sync         produce.go, consume.go, sync.go    franz-go's load
//	millrace.go, kafka.go, kfake.go    brokers      workshop.go, process.go   installing and running them
//	control.go   the machine           measure.go, ratio.go, report.go    figures, ratios, tables, JSON
//	judge.go     wazero alone          guests.go    -engine               profile.go  CPU profiles
package main
