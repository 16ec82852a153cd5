// Command bench measures brokers with one franz-go load: produce and consume at full speed, consume through the dedup
// plugin, one record at a time, and the time from exec to the first acknowledged record. It starts each broker itself, as
// a process of its own with its data on a real disk, and puts a physical control beside each figure: the same bytes
// written and synced, sent over loopback, or judged by wazero alone.
//
//	go run ./internal/bench [-rounds 3] [-records N] [-size 1024,100] [-only REGEXP] [-json FILE] [-dir DIR]
//	go run ./internal/bench -guests
//
// With -guests it runs three hostile plugins in this process, beside a load that allocates and collects, and prints the
// longest pause of the collector and the fuel at which each was ended.
//
// Figures are medians over rounds; within a round scenarios follow one another in a fixed order, so that a ratio's two
// sides are taken within seconds. It never judges: it prints, and says when a control moved too far for the rest to mean
// anything. Names of scenarios are stable; a broker is whatever implements system. One goroutine drives; those that load
// belong to task groups and end with their scenario. The files:
//
//	main.go      flags, rounds           system.go    what a broker is     millrace.go  our own
//	produce.go   writing                 consume.go   reading              sync.go      one at a time
//	control.go   disk and loopback       judge.go     wazero alone         process.go   CPU and memory of a process
//	report.go    medians, table, JSON    guests.go    -guests
package main
