// Command raftctl operates Millrace clusters; the commands are in package raftctl.
package main

import (
	"os"

	"github.com/millrace-io/millrace/raftctl"
)

func main() { os.Exit(raftctl.Main()) }
