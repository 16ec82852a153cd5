// Package task starts goroutines that somebody waits for. A Group gives each one a name and the group's context; the
// first error cancels the rest; Wait returns when all of them have ended. It never starts anything that outlives Wait.
// Whoever creates a group stops it and waits for it.
package task
