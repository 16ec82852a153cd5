package main

import (
	"fmt"
)

// measure is one scenario in one round on one system. What a scenario does not measure stays 0.
type measure struct {
	System           string   `json:"system"`
	Scenario         string   `json:"scenario"`
	Round            int      `json:"round"`
	Size             int      `json:"size_bytes"`
	Records          int      `json:"records,omitempty"`
	Seconds          float64  `json:"seconds,omitempty"`
	BrokerCPUSeconds float64  `json:"broker_cpu_seconds,omitempty"`
	DriverCPUSeconds float64  `json:"driver_cpu_seconds,omitempty"`
	ResidentMB       float64  `json:"broker_resident_mb,omitempty"`
	P50Millis        float64  `json:"p50_ms,omitempty"`
	P99Millis        float64  `json:"p99_ms,omitempty"`
	LateP99Millis    float64  `json:"late_p99_ms,omitempty"`    // of an open loop's sender itself
	AddedP99Millis   float64  `json:"added_p99_ms,omitempty"`   // by a hostile guest, over the window before
	OverPlain        float64  `json:"over_plain,omitempty"`     // plain readings' time, before and behind, over this one's
	PauseMillis      *float64 `json:"gc_stopping_ms,omitempty"` // the highest bucket of stopping the world
	GuestCalls       *uint64  `json:"guest_calls,omitempty"`
	Controls         controls `json:"controls"`
}

func (m *measure) perSecond() float64 {
	if m.Seconds == 0 {
		return 0
	}
	return float64(m.Records) / m.Seconds
}

func (m *measure) megabytes() float64 { return m.perSecond() * float64(m.Size) / 1e6 }

// brokerCPU and driverCPU are CPU seconds per million records.
func (m *measure) brokerCPU() float64 { return perMillion(m.BrokerCPUSeconds, m.Records) }
func (m *measure) driverCPU() float64 { return perMillion(m.DriverCPUSeconds, m.Records) }

func perMillion(seconds float64, records int) float64 {
	if records == 0 {
		return 0
	}
	return seconds / float64(records) * 1e6
}

// cores is the share of one core that the broker used.
func (m *measure) cores() float64 {
	if m.Seconds == 0 {
		return 0
	}
	return m.BrokerCPUSeconds / m.Seconds
}

// figure is the measure in a few words, for whoever watches the run.
func (m *measure) figure() string {
	switch {
	case m.PauseMillis != nil:
		return fmt.Sprintf("%8.0f records/s, p50 %.2f, p99 %.2f ms, sender late %.2f ms, added %.2f ms, stopping %.3f ms, %d guest calls, %.2f and %.2f cores",
			m.perSecond(), m.P50Millis, m.P99Millis, m.LateP99Millis, m.AddedP99Millis, *m.PauseMillis, *m.GuestCalls, m.cores(), m.DriverCPUSeconds/m.Seconds)
	case m.P50Millis > 0:
		return fmt.Sprintf("%8.0f records/s, p50 %.3f ms, p99 %.2f ms", m.perSecond(), m.P50Millis, m.P99Millis)
	case m.Records > 1:
		return fmt.Sprintf("%8.0f records/s, broker %.2f, driver %.2f CPU s/M", m.perSecond(), m.brokerCPU(), m.driverCPU())
	}
	return fmt.Sprintf("%.3f s, %.0f MB resident, %.1f %% of a core", m.Seconds, m.ResidentMB, 100*m.cores())
}
