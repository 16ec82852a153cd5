// Package bubble runs whole clusters in virtual time: real nodes (broker/node, with everything below), real QUIC between them
// and to their clients, real Kafka clients (franz-go), in a testing/synctest bubble, over a packet network and disks of its
// own. Things go wrong as a seed says, then all is healed, and what the clients saw is held against what lies on the disks.
//
// What is not real: the network (packets.go; streams, which stand for TCP, have no weather, but cannot be made through a cut),
// the disks (internal/vfs, where a sync takes no time), and time. A process that is killed does nothing more that anybody
// can see: its sockets have no addresses any more, its disk refuses it, and its goroutines end in their own time. Processes
// that pause are not in it, since the clock is everybody's. Guests of plugins are real, of a built-in one, and take no time
// either.
//
// The order in which goroutines run is the scheduler's: a seed repeats the faults and the load, and a failure often, not
// always. internal/sim is what repeats a run event for event, with the rules alone.
//
//	packets.go   packets and cuts between hosts; streams.go listeners and dials, stream.go a connection of bytes
//	cluster.go   machines, processes, how a cluster is founded
//	plan.go      what a seed chooses; faults.go what goes wrong
//	clients.go   producers, a group, a reader, a watcher; history.go what they saw; membership_*.go what they can
//	bound.go     a group behind a dedup chain, and the oracle of what it gets
//	run.go       a run from the first node to the last
//	check.go     what must hold; linear.go what porcupine is asked
//
// A bubble's clock goes on when every goroutine waits for a channel, a timer or a condition. A mutex is none of those: who
// waits for one while its holder waits for time stops the clock for good. Nothing in the brokers does so; franz-go's group
// members do, unless it is built with the tag synctests (twmb/franz-go#1303), as `make bubble` builds it.
package bubble
