package main

// trioTargets are the bounds that clusters are held to, with data directories in memory.
func trioTargets() (all []target) {
	seconds := func(m *measure) float64 { return m.Seconds }
	p50, p99 := func(m *measure) float64 { return m.P50Millis }, func(m *measure) float64 { return m.P99Millis }
	for _, size := range []int{1024, 100} {
		least := map[int][2]float64{1024: {1.5, 2}, 100: {1.8, 6}}[size]
		for _, p := range []string{"-1p", "-6p"} {
			all = append(all,
				target{name: about(trioProduce+p, size, "records/s, over Kafka"), least: least[0], figure: besides("kafka", trioProduce+p, size, (*measure).perSecond)},
				target{name: about(trioProduce+p, size, "records/s, over NATS"), least: least[1], figure: besides("nats", trioProduce+p, size, (*measure).perSecond)},
				target{name: about(trioProduce+p, size, "brokers' CPU a record, over Kafka"), most: 0.6, figure: besides("kafka", trioProduce+p, size, (*measure).brokerCPU)})
		}
	}
	all = append(all,
		target{name: about(trioSync+"-1", 1024, "p50, over Kafka"), most: 0.4, figure: besides("kafka", trioSync+"-1", 1024, p50)},
		target{name: about(trioSync+"-1", 1024, "p50, over NATS"), most: 1, figure: besides("nats", trioSync+"-1", 1024, p50)},
		target{name: about(trioOpen, 1024, "end-to-end p99, over Kafka"), most: 0.3, figure: besides("kafka", trioOpen, 1024, p99)})
	for _, s := range []struct {
		scenario     string
		median, most float64 // 0: none
	}{
		{trioKill + "-leader", 1.2, 2.5}, {trioKill + "-both", 1.2, 2.5}, {trioPause + "-leader", 2.5, 0}, {trioCut + "-leader", 2.5, 0}, {trioRestart, 2, 0},
		{trioIdle + "-create", 10, 0}, {trioOrphans, 2, 0},
	} {
		all = append(all, target{name: s.scenario + ": median", unit: "s", most: s.median, figure: ofOurs(s.scenario, seconds)})
		if s.most > 0 {
			all = append(all, target{name: s.scenario + ": longest", unit: "s", most: s.most, figure: longestOfOurs(s.scenario)})
		}
	}
	return append(all,
		target{name: trioIdle + ": CPU a node", unit: "% of a core", most: 10, figure: ofOurs(trioIdle, func(m *measure) float64 { return 100 * m.cores() / trioNodes })},
		target{name: trioIdle + ": memory a node", unit: "MB", most: 120, figure: ofOurs(trioIdle, func(m *measure) float64 { return m.ResidentMB / trioNodes })},
		target{name: trioCatchUp + ": MB/s, over a raw stream beside the same load", least: 0.5,
			figure: withinOurs(trioCatchUp, trioCatchUp+"-raw", (*measure).megabytes)},
		target{name: trioCatchUp + ": p99 of the load, over alone", most: 3,
			figure: withinOurs(trioCatchUp+"-load-beside", trioCatchUp+"-load-alone", p99)})
}

// besides compares a scenario with a peer.
func besides(peer, scenario string, size int, f func(*measure) float64) func(*report) (spread, string, bool) {
	return func(r *report) (spread, string, bool) {
		x := r.row(cell{"millrace", scenario, size}).over(r.row(cell{peer, scenario, size}), "", f)
		if x == nil {
			return spread{}, "", false
		}
		return x.Value, x.Doubt, true
	}
}

// own finds a scenario of our broker at whatever size it ran.
func (r *report) own(scenario string) *row {
	for i := range r.Rows {
		if x := &r.Rows[i]; x.System == "millrace" && x.Scenario == scenario {
			return x
		}
	}
	return nil
}

func ofOurs(scenario string, f func(*measure) float64) func(*report) (spread, string, bool) {
	return func(r *report) (spread, string, bool) {
		x := r.own(scenario)
		if x == nil {
			return spread{}, "", false
		}
		return over(x.measures, f), x.Doubt, true
	}
}

// longestOfOurs holds every single measure to the bound.
func longestOfOurs(scenario string) func(*report) (spread, string, bool) {
	return func(r *report) (spread, string, bool) {
		x := r.own(scenario)
		if x == nil {
			return spread{}, "", false
		}
		return spread{x.Seconds.Max, x.Seconds.Min, x.Seconds.Max}, x.Doubt, true
	}
}

// withinOurs compares two scenarios of our broker, round by round.
func withinOurs(scenario, base string, f func(*measure) float64) func(*report) (spread, string, bool) {
	return func(r *report) (spread, string, bool) {
		x := r.own(scenario).over(r.own(base), "", f)
		if x == nil {
			return spread{}, "", false
		}
		return x.Value, x.Doubt, true
	}
}

// bounds are the targets of one kind of run.
func bounds(cluster bool) []target {
	if cluster {
		return trioTargets()
	}
	return targets()
}
