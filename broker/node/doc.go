// Package node is the assembly: a configuration and the seams to the outside go in, a running node comes out. It opens
// the data directory, the metadata quorum, the partitions, the coordinators, delivery and the faces in the order in which
// they need each other, carries out what reconcile asks for, and takes everything down again in the opposite order. It
// holds no rules of its own: what is decided is decided in the rooms below. cmd/millrace and sdk/sdktest call it.
//
// The goroutines of a node belong to one task.Group; the first one that fails ends the node.
package node
