//go:build mutant

package sim

import "github.com/millrace-io/millrace/broker/partition"

func rollback(l *partition.Leader) { l.Rollback() }
