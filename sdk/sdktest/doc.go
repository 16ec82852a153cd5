// Package sdktest starts a real node inside a Go test: the same broker that `millrace run` runs, in a directory of the
// test's own, on free loopback ports, stopped and checked when the test ends. Nothing is faked, so what passes here is
// what a cluster does. Run does the same outside of a test.
package sdktest
