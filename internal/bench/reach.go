package main

import "io"

// reached is one target and what came of it.
type reached struct {
	Target string `json:"target"`
}

func reachOf(*report) []reached { return nil }

func printReach(io.Writer, []reached) {}
