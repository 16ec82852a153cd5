// Package broker holds the nouns that every room of the broker shares: identities, positions in a log, epochs, and
// the error codes that cross a wire. It holds no behaviour beyond formatting and comparing them, imports nothing of
// this module, and is imported by everything above it.
//
// Positions are half-open: a range is [start, end), and an "end" is one past the last offset. Epochs are never just
// "epoch": a LeaderEpoch numbers the leaders of one partition, a PartitionEpoch every change to it, a BrokerEpoch the
// incarnations of one broker, a ProducerEpoch those of one producer id.
package broker
