//go:build mutant

package partition

// Rollback forgets what was proposed, as no leader may (RC8). It exists in builds with mutants only.
func (l *Leader) Rollback() { l.pending, l.proposed = nil, nil }
