package main

// client is one client to try.
type client struct {
	name, version string
	from          string // its registry
	quick         bool   // part of the default set
	install       installer
	codecs        []string
	noCreate      string // why it cannot create topics; then the topic is made for it
	noRack        string // why a rack cannot name the group for it
	// noZstdFetch is for what writes zstd but reads with a version of Fetch below 10, to which Kafka refuses zstd too.
	noZstdFetch bool
	// noScram is why it cannot prove itself with SCRAM.
	noScram  string
	drains   bool   // has the verb drain
	quic     bool   // its driver goes over QUIC
	protocol string // of its groups: consumer (KIP-848); empty: its default, which is classic
}

var allCodecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// pythonCodecs are what kafka-python needs beside itself.
var pythonCodecs = []string{"lz4==4.4.5", "python-snappy==0.7.3", "zstandard==0.25.0"}

var clients = []client{
	{
		name: "kcat", version: "1.7.1", from: "Debian", quick: true, install: debian, codecs: allCodecs,
		noCreate: "kcat has no command for it",
		noScram:  "its librdkafka 2.0.2 sends its nonce twice in its last message, which Apache Kafka refuses too since CVE-2024-56128",
	},
	{
		name: "kafka-python", version: "3.0.12", from: "PyPI", quick: true, codecs: allCodecs,
		install: python("kafka-python-3", "kafka_python.py", append(pythonCodecs, "kafka-python==3.0.12")...),
	},
	{
		name: "kafka-python", version: "2.0.2", from: "PyPI", codecs: allCodecs,
		install: python("kafka-python-2", "kafka_python.py", append(pythonCodecs, "kafka-python==2.0.2")...),
		noRack:  "it sends Fetch version 4, which carries no rack", noZstdFetch: true,
	},
	{
		name: "confluent-kafka", version: "2.16.1", from: "PyPI", quick: true, codecs: allCodecs,
		install: python("confluent-kafka", "confluent.py", "confluent-kafka==2.16.1"),
	},
	{
		name: "confluent-kafka-848", version: "2.16.1", from: "PyPI", codecs: allCodecs, protocol: "consumer",
		install: python("confluent-kafka", "confluent.py", "confluent-kafka==2.16.1"),
	},
	{
		name: "aiokafka", version: "0.14.0", from: "PyPI", codecs: allCodecs,
		install: python("aiokafka", "aio.py", "aiokafka==0.14.0", "cramjam==2.14.0"),
	},
	{
		name: "kafkajs", version: "2.2.4", from: "npm", codecs: []string{"none", "gzip"},
		install: npm("kafkajs", "kafkajs/driver.js", "kafkajs@2.2.4"),
	},
	{
		name: "franz-go", version: "1.22.2", from: "Go", quick: true, codecs: allCodecs, install: golang("franz-go"),
	},
	{
		name: "franz-go-quic", version: "1.22.2", from: "Go, over QUIC", codecs: allCodecs, install: golang("franz-go"), quic: true,
	},
	{
		name: "franz-go-848", version: "1.22.2", from: "Go", codecs: allCodecs, install: golang("franz-go"), protocol: "consumer",
	},
	{
		name: "sarama", version: "1.61.1", from: "Go", codecs: allCodecs, install: golang("sarama"),
	},
	{
		name: "kafka-go", version: "0.4.51", from: "Go", codecs: allCodecs, install: golang("kafka-go"),
		noRack: "its Reader sends Fetch version 10 at most, which carries no rack",
	},
	{name: "java", version: apacheVersion, from: "Maven", codecs: allCodecs, install: javaDriver, drains: true},
	{name: "java-848", version: apacheVersion, from: "Maven", codecs: allCodecs, install: javaDriver, drains: true, protocol: "consumer"},
}
