//go:build synctests

package bubble

// membership says that Kafka clients may be members of groups: with this tag franz-go's locks are channels, so that a bubble's
// clock goes on while somebody waits for one.
const membership = true
