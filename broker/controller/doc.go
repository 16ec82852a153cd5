// Package controller decides: a request, the head image and the time give facts and a reply. The head image is the applied
// image with the leader's own proposals folded in, in order, so that a decision never contradicts one that is still on
// its way (RC12). The facts go to the metadata log; nobody sees the reply before they are committed and applied.
//
// It holds what a choice needs (placement, election, fencing, the checks of AlterPartition) so that apply needs none.
// Nothing is special for a cluster of one node: a restart is a registration, which takes the broker out of every ISR and
// leaves it in the ELR, and unfencing elects it from there.
//
// Core is a value without I/O, clock, goroutine or lock; randomness is the reader that its constructor takes. quorum
// calls it from its one loop, on the raft leader only.
package controller
