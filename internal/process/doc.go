// Package process runs programs beside the tools that measure, break and compare them: one broker of ours as a user would
// start it, its peers, on loopback addresses. A process is ended by its id, and never outlives the wait for its end.
package process
