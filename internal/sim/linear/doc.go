// Package linear asks porcupine whether what clients were told of one partition agrees with any order of events in real
// time. It knows nothing of how the history was made: internal/sim and internal/sim/bubble both use it.
package linear
