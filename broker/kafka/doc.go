// Package kafka is the protocol face: it speaks the Kafka protocol, with Kafka's own clients, over any listener of byte
// streams, and turns requests into calls on the rooms behind it. It holds no state of its own beyond connections: what
// a topic is comes from the metadata image, records live in partitions, groups in the coordinator, filtered logs in
// delivery. It declares those neighbours as small interfaces (seams.go, groups.go) and imports none of them.
//
// # One request
//
// A connection has one goroutine that reads frames (frame.go), checks every count in them against the bytes that are
// there (shape.go), decodes with kmsg, and answers one request at a time, as Kafka does. Produce alone is pipelined: its
// batches are checked and submitted in the order they came, and the next frame is read while they are replicated; a
// second goroutine, started with the first Produce, writes those answers in order (outbox.go). Anything else waits until
// the pipeline is empty. Records are never copied: they go from the frame to the log, and from the log's buffers to the
// socket (fetch_response.go, wire.go).
//
// # Who is asking
//
// A Fetch carries no group. identity.go holds the one function that resolves it: a view, then the preamble of an SDK's
// stream, then client.rack; the first match decides, and there are never two chains.
//
// # Where to look
//
// There is one file for each API key, named as the request, with the versions it speaks and what it does in its first
// comment; versions.go is the table that ApiVersions answers from. Error codes are written here and nowhere else.
// Transactions are not spoken: a transactional id gets TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which every client takes
// for fatal, whereas a retriable code would have it wait for ever.
package kafka
