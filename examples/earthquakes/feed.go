package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"
)

//go:embed data/earthquakes.ndjson
var published []byte

// The poll rule: every pollEvery the feed shows the events of the last pollWindow.
const (
	pollEvery  = 10 * time.Minute
	pollWindow = 6 * time.Hour
)

// event is one line of the file. The reviewed fields are nil until a seismologist has looked at the event.
type event struct {
	ID        string   `json:"id"`
	Time      int64    `json:"time"`    // Unix milliseconds
	Updated   int64    `json:"updated"` // Unix milliseconds
	Status    string   `json:"status"`
	Type      string   `json:"type"`
	Mag       *float64 `json:"mag"`
	MagType   *string  `json:"magType"`
	Place     string   `json:"place"`
	Felt      *int     `json:"felt"`
	Sig       int      `json:"sig"`
	Nst       *int     `json:"nst"`
	Gap       *float64 `json:"gap"`
	Rms       *float64 `json:"rms"`
	Longitude float64  `json:"longitude"`
	Latitude  float64  `json:"latitude"`
	Depth     float64  `json:"depth"`
}

// readFeed reads the published file, oldest event first.
func readFeed() ([]event, error) {
	var events []event
	for number, line := range bytes.Split(bytes.TrimSpace(published), []byte("\n")) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("data/earthquakes.ndjson:%d: %w", number+1, err)
		}
		events = append(events, e)
	}
	return events, nil
}

// asSeen returns what the feed says of e at a moment: before the review is published, the event as the instruments
// reported it.
func (e event) asSeen(at int64) event {
	if e.Status != "reviewed" || at >= e.Updated {
		return e
	}
	e.Status, e.Updated = "automatic", e.Time
	e.Felt, e.Nst, e.Gap, e.Rms = nil, nil, nil, nil
	return e
}

// polls returns what each poll of the feed shows, in order. The overlap of neighbouring polls is the duplication that
// polling brings.
func polls(events []event) [][]event {
	first, last := events[0].Time, events[len(events)-1].Time
	var all [][]event
	for at := first; at <= last+pollEvery.Milliseconds(); at += pollEvery.Milliseconds() {
		var shown []event
		for _, e := range events {
			if e.Time <= at && e.Time > at-pollWindow.Milliseconds() {
				shown = append(shown, e.asSeen(at))
			}
		}
		all = append(all, shown)
	}
	return all
}
