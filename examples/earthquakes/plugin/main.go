// Each revision of each earthquake once, reshaped: the id of an event is its id and the moment it was last updated, so a
// revision is another event and a copy is not. What a reader of the group gets is the event without the instruments'
// details. A record that is no earthquake is dead-lettered with the reason.
package main

import (
	"encoding/json"
	"strconv"

	millrace "github.com/millrace-io/millrace/plugins/guest/go"
)

// earthquake is what the plugin reads, and in the same order what it delivers.
type earthquake struct {
	ID      string   `json:"id"`
	Updated int64    `json:"updated"`
	Time    int64    `json:"time"`
	Status  string   `json:"status"`
	Mag     *float64 `json:"mag"`
	Place   string   `json:"place"`
}

// notAnEarthquake is the code that dead letters carry.
const notAnEarthquake = 1

func init() { millrace.Judge(judge) }

func main() {}

func judge(r millrace.Record) millrace.Verdict {
	var e earthquake
	if err := json.Unmarshal(r.Value(), &e); err != nil {
		return millrace.DeadLetter(notAnEarthquake, "not an earthquake as JSON: "+err.Error())
	}
	if e.ID == "" {
		return millrace.DeadLetter(notAnEarthquake, "an earthquake without an id")
	}
	slim, err := json.Marshal(e)
	if err != nil {
		return millrace.DeadLetter(notAnEarthquake, err.Error())
	}
	id := append([]byte(e.ID), '@')
	id = strconv.AppendInt(id, e.Updated, 10)
	return millrace.Replace(millrace.Keep, slim).Unique(id)
}
