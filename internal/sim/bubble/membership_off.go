//go:build !synctests

package bubble

// membership says that Kafka clients may be members of groups. A member holds a lock of franz-go's while it waits for the
// group, and whoever wants it meanwhile stops the clock of the bubble for good: a mutex is nothing that a bubble waits on.
const membership = false
