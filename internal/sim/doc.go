// Package sim runs whole clusters from one seed, in virtual time, on one goroutine: the pure cores of replication
// (broker/partition), of idempotence (broker/producer), of the metadata (broker/metadata) and of the controller
// (broker/controller), with real raft nodes between them, over simulated disks and a simulated network, with producers and
// readers at one end and faults at the other. What the clients saw, and what lies on the disks when everything is healed,
// is then held against the promises.
//
// What is real and what is not: every rule about leaders, followers, ISRs, epochs, elections, facts and sequences is the
// code that runs in a broker. The harness has shells of its own, which do in virtual time what broker/replica and
// broker/quorum do with goroutines and files: frames are values, a log is a row of cells (see disk.go), a record is a
// number. Record batches, commitlog's files and QUIC are not in it; other suites lose power and packets there.
//
// One event queue orders everything. Nothing here reads a clock, starts a goroutine or ranges over a map where order can
// matter, so a seed is a run: the same trace, event for event. A failing seed prints the command that replays it.
//
//	world.go     time, the queue, the random source, the trace; plan.go what a seed chooses
//	network.go   links that delay, lose, double and break; session.go ordered streams over them
//	disk.go      cells, syncs, power loss, recovery; raftdisk.go the same for raft
//	machine.go   a node: its disk, its process, its clock
//	member.go    a node's part in the raft group; control.go the controller on top; detector.go who is alive
//	replica.go   one replica's owner: roles and images; lead.go, follow.go its two sides; repair.go new identities
//	client.go    producers, reader.go readers; history.go what they saw
//	quorum.go    who votes, and how that changes
//	faults.go    what goes wrong; check.go what must hold nevertheless; linear.go what porcupine is asked
//	inside.go    what must hold at every step, of what only the whole can see
//	scenario.go  interleavings that random runs do not find, by hand; steps.go what they do
//
// It is a tool: nothing imports it, and it never touches files, sockets or the time of day.
package sim
