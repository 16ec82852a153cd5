package engine

import (
	"bytes"
	"os"
	"strconv"
)

// Where the kernel tells which processors there are and how many threads want to run (proc_loadavg(5)), those of the whole
// machine alike: in a container on a shared host, processors are not short because the container has few.
const (
	onlineFile = "/sys/devices/system/cpu/online"
	loadFile   = "/proc/loadavg"
)

// newShortage returns what tells whether more threads want to run than there are processors, at the price of a short system
// call; nil where the kernel does not say. It is safe for concurrent use.
func newShortage() func() bool {
	processors, ok := processorsOnline()
	if !ok {
		return nil
	}
	load, err := os.Open(loadFile) // closed with whatever holds the function
	if err != nil {
		return nil
	}
	return func() bool {
		var line [64]byte
		n, _ := load.ReadAt(line[:], 0) // a short line ends in EOF
		running, ok := runningOf(line[:n])
		return ok && running > processors
	}
}

func processorsOnline() (int, bool) {
	online, err := os.ReadFile(onlineFile)
	if err != nil {
		return 0, false
	}
	return countListed(bytes.TrimSpace(online))
}

// runningOf reads the fourth field of /proc/loadavg, as in "0.20 0.18 0.12 3/80 11206".
func runningOf(line []byte) (int, bool) {
	for range 3 {
		_, line, _ = bytes.Cut(line, []byte{' '})
	}
	running, _, ok := bytes.Cut(line, []byte{'/'})
	n, err := strconv.Atoi(string(running))
	return n, ok && err == nil
}

// countListed counts a list as the kernel prints sets of processors: "0-3,6".
func countListed(list []byte) (count int, ok bool) {
	for item := range bytes.SplitSeq(list, []byte{','}) {
		first, last, isRange := bytes.Cut(item, []byte{'-'})
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(string(first))
		to, errLast := strconv.Atoi(string(last))
		if err != nil || errLast != nil || to < from {
			return 0, false
		}
		count += to - from + 1
	}
	return count, true
}
