// Package tidy holds the rules of the house as tests: who may import whom, which packages are pure, how long a file and
// a function may be, that every package says what it is for, and that the documents name files that exist. It has no
// code that anything imports. A rule that must be broken has a line in testdata/exceptions.txt, and that list may only
// shrink.
package tidy
