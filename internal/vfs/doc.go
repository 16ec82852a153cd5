// Package vfs is the narrow seam between the broker and the file system. FS has two implementations: OS, the real one,
// and Mem, which keeps what was synced apart from what was only written, so that power loss is a function call and
// errors can be injected at any operation.
//
// What a caller may rely on, and no more: written bytes are durable after File.Sync; a created, renamed or removed name
// is durable after SyncDir of its directory; Rename replaces atomically; bytes written but not synced may survive a
// crash in any subset of their blocks. A failed Sync says nothing about which bytes are durable and must not be
// retried: the process ends.
package vfs
