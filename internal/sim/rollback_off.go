//go:build !mutant

package sim

import "github.com/millrace-io/millrace/broker/partition"

// rollback is what no build but one with mutants can do to a leader.
func rollback(*partition.Leader) {}
