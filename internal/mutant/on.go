//go:build mutant

package mutant

// Built says whether this is a build with mutants.
const Built = true

var chosen Mutant

// Choose breaks one rule and mends the others; 0 breaks none. It is called before anything runs.
func Choose(m Mutant) { chosen = m }

// Is says whether the rule is broken.
func Is(m Mutant) bool { return chosen == m }
