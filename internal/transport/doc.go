// Package transport gives the rest of the house byte streams: TCP connections and QUIC streams, both as net.Conn behind
// net.Listener, so that a protocol face never asks which one it serves. It holds the settings that make QUIC fast
// (socket buffers, windows, keep-alive), the TLS configurations made from PEM files, and the framing of the SDK
// preamble. It never interprets a byte of a protocol: what a preamble says is the business of whoever marshals it.
//
// A listener is one port number on TCP and UDP (Bind). A QUIC connection carries many streams; ListenQUIC yields every
// accepted stream as a connection of its own, DialQUIC opens streams on one shared connection for each address.
//
// The SDK preamble, the first bytes of a client's QUIC stream, optional and without a reply:
//
//	"MRS1"  u16 length (little-endian)  length bytes, at most 4 KiB
//
// As the size of a Kafka frame "MRS1" is far beyond the cap, so a stream that does not begin with it is plain Kafka.
package transport
