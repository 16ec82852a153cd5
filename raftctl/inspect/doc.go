// Package inspect reads the files of a data directory while no broker does: segments of a partition's log, and of the
// metadata log. It is for tools and for people after an accident, so it shows what a broker would refuse: a batch whose
// CRC does not fit is yielded with its state, and a walk ends only where no next batch can be found.
//
// It writes nothing, takes an io/fs file system so that it cannot, and holds one batch in memory at a time. A directory in
// use may be read too; what the broker is writing then looks like a torn tail.
package inspect
