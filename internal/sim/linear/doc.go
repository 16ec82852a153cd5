// Package linear asks porcupine whether what clients were told of one partition agrees with any order of events in real
// time. It knows nothing of how the history was made: internal/sim, internal/sim/bubble and internal/chaos use it.
//
// A history is cut into pieces wherever everything that was asked has been answered: what was answered before such a moment
// comes before all that was asked after it, so the pieces are linearizable one after another if and only if the whole is,
// and an hour of load costs no more memory than a second of it.
package linear
