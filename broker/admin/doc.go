// Package admin serves the admin API (package adminapi) over Connect: it turns messages into requests to the controller,
// questions to the rooms below, and their answers back into messages. It decides nothing: what is allowed is the
// controller's to say, what a group or a chain is doing is theirs. raftctl, the SDK and curl call it.
//
// It imports no room that does I/O; the small interfaces in seams.go are glued to them by package node. Its handlers run on
// the HTTP server's goroutines and share nothing that changes.
package admin
