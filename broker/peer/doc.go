// Package peer connects the nodes of a cluster: every node to every voter, over QUIC with mutual TLS, on the cluster
// listener. It knows who the other side is, and nothing of what is said.
//
// A connection begins with a HELLO on its first stream, from whoever dialled, and an answer:
//
//	u32 length, JSON {cluster, from, to, raft, directory, incarnation, kind, versions, ...}
//	u32 length, JSON {the same of the other side, version} or {refused: why}
//
// Cluster and node are compared with the certificate (URI millrace://<cluster>/node/<n>), raft id and directory with the
// members of the image; an incarnation is drawn by the process. A stranger, another cluster, another node than the one
// that was dialled, a member that was removed and a copied directory are refused with a sentence, logged once, counted.
//
// A control connection (kind "control") has three streams, so that none waits for another (RH12): heartbeats, a record of
// 40 bytes each 100 ms in both directions; raft messages, dropped when 1,024 wait (raft sends again, and is told);
// questions with their answers. Everybody dials the voters and the configured seeds; a connection is used in both
// directions, so nobody needs to know a learner's address. Two that dial each other at once have two, and use the newer.
//
//	heartbeats   i64 broker epoch, u64 applied index, i64 sent, i64 answers, i64 led ago
//	raft         u32 length, message
//	questions    u32 length, u64 id, u8 0 question | 1 answer, bytes
//
// A heartbeat answers the newest that came from the other side, with the time that this one bore; times are milliseconds of
// its sender's own clock, which nobody else reads.
//
// Connections of other kinds have what their kind says behind the HELLO; "snapshot" is a file.
//
// Beside them every node holds a lifeline to every voter: a TCP connection with mutual TLS on which nothing is said behind the
// HELLOs, and whose end tells that a process has died (RH7).
//
// The fabric's goroutines are its own: one accepts, one dials, five serve each control connection, and one holds each
// lifeline. node makes it, accepts on the TCP port, and is told what arrives through Handler.
package peer
