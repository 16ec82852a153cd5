// Package inspect reads the logs of a stopped node, or of a copy of its directory, and says what is there: segments,
// batches, records, leader epochs, indexes and the flush journal, of partitions and of the metadata log alike. It opens
// nothing for writing, repairs nothing and needs no other file than the ones it is pointed at. raftctl's debug commands
// call it; every function runs on the caller's goroutine.
package inspect
