// Package sdk is the Go client of Millrace: produce records, consume them in a group through the group's chain of
// plugins, upload and bind plugins, and manage topics, groups and views.
//
// It stands on franz-go (package kgo) and never re-implements a Kafka client: what it adds is the transport, the name of
// the group on every stream, and the admin API. The clients underneath are reachable, so nothing that they can do is out
// of reach.
//
// A Client speaks to the brokers over QUIC or TCP. Over QUIC each stream opens with a preamble that names the consumer
// group, so that the broker knows whose filtered log to serve; over TCP the client says the same with its rack. Either
// way the records that a Consumer polls are those of the group's filtered log, with the offsets of the log itself.
//
// Beside each QUIC connection the client holds an idle TCP connection to the same port, if it can: by it a broker's death is
// known at once instead of after three seconds.
//
// Delivery is at least once: a record is polled again if the process ends between handling it and committing. (topic id,
// partition, offset) identifies a record for ever, also across such repeats.
package sdk
