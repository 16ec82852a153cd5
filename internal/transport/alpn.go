package transport

// Application protocols, as TLS negotiates them (ALPN).
const (
	ALPNKafka       = "millrace-kafka/1"
	ALPNReplication = "millrace-repl/1"
)
