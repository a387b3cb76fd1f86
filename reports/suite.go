package reports

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// site is what one machine and build measured: the results of a report that
// share an environment, their runs sorted into scenarios.
type site struct {
	env       result.Env
	results   []*result.Result
	runs      []*result.Run
	scenarios []*scenario
	telling   []string // the settings in which scenarios differ (result.Run.Settings)
	// ranks gives every backend of the whole report its place in the order of
	// first appearance, which decides its colour.
	ranks map[string]int

	tablesMu sync.Mutex
	tables   map[string]func() []result.Comparison // by baseline, see compared
}

// scenario is one workload under one load on one kind of cluster: what may be
// compared with each other.
type scenario struct {
	site *site
	scenarioKey
	joins     [len(joinable)]bool // several are joined here, see joined
	rows      []*row
	contrasts map[*row][]result.Comparison // by baseline, as far as asked for
}

// scenarioKey holds everything but the backend that makes two runs comparable.
type scenarioKey struct {
	workload, transport, loop, placement string
	nodes, groups, batch                 int
	kind                                 string
	clients                              int
	rate                                 float64
	curve                                bool // the load varies: a curve, or the steps of a search
	search                               bool // its runs are the steps of a search for the rate that holds slo
	slo                                  string
	readRatio                            float64
	valueBytes                           int
	valueSize, snapshots, raft           string
	stateBytes                           int64
	slowDisk                             string
	killed                               bool   // restart: the process that wrote the log was killed
	faults                               string // timeline
	settings                             string // result.Run.Settings
}

// row is one backend with its parameters in one scenario.
type row struct {
	scenario   *scenario
	label      string // "bbolt[freelist=array]"
	backend    string
	params     map[string]string
	durability string
	control    string // what it is a control for; "" for an engine
	runs       []*result.Run
	failed     []*result.Run // ended without figures
	// elsewhere are runs of the same backend on the same cluster under the
	// workloads snapshot and restart: they fill two columns of the scoreboard.
	elsewhere []*result.Run
}

// controls are the backends that are no candidates: they measure what is around
// an engine.
var controls = map[string]string{"raw": "device floor", "mem": "harness ceiling"}

// name is the row's name in comparisons, where label is the one to show.
func (rw *row) name() string {
	return stats.Name(&result.Run{Backend: rw.backend, Params: rw.params})
}

// labelOf names the backend of a run with its parameters, as the command line
// would.
func labelOf(backend string, params map[string]string) string {
	return clean(stats.Name(&result.Run{Backend: backend, Params: params}))
}

func keyOf(r *result.Run) scenarioKey {
	k := scenarioKey{
		workload: r.Workload, transport: r.Transport, loop: r.Loop, raft: cmp.Or(r.Raft, "node"), placement: r.Placement,
		nodes: r.Nodes, groups: r.Groups, batch: r.Batch,
		kind: r.Load.Kind, clients: r.Load.Clients, rate: r.Load.Rate, slo: r.Load.SLO,
		readRatio: r.ReadRatio, valueBytes: r.ValueBytes, valueSize: r.ValueSize, stateBytes: r.StateBytes,
		slowDisk: r.SlowDisk,
	}
	if r.Load.Point != "" {
		k.curve, k.search, k.kind, k.clients, k.rate = true, r.Load.Step > 0, "", 0, 0
		if !k.search {
			k.slo = ""
		}
	}
	if r.Workload == "snapshot" || r.Workload == "restart" {
		// Their sizes are the axis of one figure, not scenarios of their own.
		k.stateBytes = 0
	}
	if r.Faults != nil {
		k.faults = r.Faults.Timeline
	}
	if r.SnapshotMode != "stream" { // the default
		k.snapshots = r.SnapshotMode
	}
	for _, name := range slices.Sorted(maps.Keys(r.Settings)) {
		k.settings += name + " " + r.Settings[name] + "\n"
	}
	k.killed = r.Workload == "restart" && r.Restart != nil && r.Restart.Killed
	return k
}

// newSite sorts the runs of results into scenarios, in the order in which both
// first appear.
func newSite(results []*result.Result) *site {
	s := &site{env: results[0].Env, results: results, ranks: map[string]int{}}
	for _, res := range results {
		for i := range res.Runs {
			s.runs = append(s.runs, &res.Runs[i])
		}
	}
	byKey := map[scenarioKey]*scenario{}
	for _, r := range s.runs {
		k := keyOf(r)
		sc := byKey[k]
		if sc == nil {
			sc = &scenario{site: s, scenarioKey: k}
			byKey[k] = sc
			s.scenarios = append(s.scenarios, sc)
		}
		sc.add(r)
	}
	s.telling = telling(s.runs)
	for _, sc := range s.scenarios {
		for _, rw := range sc.rows {
			if _, ok := s.ranks[rw.label]; !ok {
				s.ranks[rw.label] = len(s.ranks)
			}
			rw.elsewhere = s.borrowed(sc, rw)
		}
	}
	if len(results) > 1 {
		// What was measured first says nothing then; a report opens with the
		// workload that all others are variations of.
		slices.SortStableFunc(s.scenarios, func(a, b *scenario) int { return a.variation() - b.variation() })
	}
	return s
}

// settingNames are the names of the settings that runs have (result.Run.Settings).
func settingNames(runs []*result.Run) []string {
	names := map[string]bool{}
	for _, r := range runs {
		for name := range r.Settings {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// telling are those of them in which runs differ.
func telling(runs []*result.Run) []string {
	return slices.DeleteFunc(settingNames(runs), func(name string) bool {
		return !slices.ContainsFunc(runs, func(r *result.Run) bool { return r.Settings[name] != runs[0].Settings[name] })
	})
}

// variation is 0 for the plain workload under one load, and more for others.
func (sc *scenario) variation() int {
	switch {
	case sc.workload != "propose":
		return 2
	case sc.curve:
		return 1
	}
	return 0
}

func (sc *scenario) add(r *result.Run) {
	name := labelOf(r.Backend, r.Params)
	i := slices.IndexFunc(sc.rows, func(rw *row) bool { return rw.label == name && rw.durability == r.Durability })
	if i < 0 {
		i = len(sc.rows)
		sc.rows = append(sc.rows, &row{
			scenario: sc, label: name, backend: r.Backend, params: r.Params,
			durability: r.Durability, control: controls[r.Backend],
		})
	}
	rw := sc.rows[i]
	if r.Error != "" {
		rw.failed = append(rw.failed, r)
		return
	}
	rw.runs = append(rw.runs, r)
}

// borrowed finds the runs of snapshot and restart workloads that speak for a
// row of another scenario on the same kind of cluster.
func (s *site) borrowed(sc *scenario, rw *row) []*result.Run {
	var out []*result.Run
	for _, other := range s.scenarios {
		if other == sc || other.workload != "snapshot" && other.workload != "restart" ||
			other.nodes != sc.nodes || other.transport != sc.transport || other.loop != sc.loop || other.raft != sc.raft ||
			other.groups != sc.groups || other.placement != sc.placement || other.snapshots != sc.snapshots {
			continue
		}
		for _, o := range other.rows {
			if o.label == rw.label && o.durability == rw.durability {
				out = append(out, o.runs...)
			}
		}
	}
	return out
}

// headline is the runs of a row that its line in the scoreboard describes. Of a
// curve it is those at the load with the highest median throughput among the
// loads without errors; of a search, the last run of each block that confirmed
// the rate.
func (rw *row) headline() []*result.Run {
	switch {
	case rw.scenario.search:
		var out []*result.Run
		for _, s := range rw.searches() {
			if s.confirmed != nil {
				out = append(out, s.confirmed)
			}
		}
		return out
	case !rw.scenario.curve:
		return rw.runs
	}
	best, top := []*result.Run(nil), -1.0
	for _, p := range rw.points() {
		if p.errors == 0 && p.throughput.Median > top {
			best, top = p.runs, p.throughput.Median
		}
	}
	if best == nil {
		return rw.runs
	}
	return best
}

// summary is the median of a figure over the runs of a row, with its interval.
type summary struct {
	stats.Summary
	thin  bool  // a percentile with fewer than 10 samples beyond it in some run
	bytes int64 // state that was moved, of snapshots and restarts
}

// of summarizes a metric over the runs of the scoreboard line.
func (rw *row) of(m *metric) summary {
	runs := rw.headline()
	if !m.moved() {
		return summarizeRuns(runs, m)
	}
	out := summarizeRuns(largest(runs, m), m)
	if out.N == 0 {
		out = summarizeRuns(largest(rw.elsewhere, m), m)
	}
	return out
}

func summarizeRuns(runs []*result.Run, m *metric) summary {
	var out summary
	var sizes []float64
	out.Summary = stats.Summarize(stats.Replicates(runs, func(r *result.Run) (float64, bool) {
		v, ok := m.get(r)
		if ok {
			out.thin = out.thin || m.thin(r)
			sizes = append(sizes, float64(sizeOf(r, m)))
		}
		return v, ok
	}))
	if len(sizes) > 0 {
		out.bytes = int64(stats.Median(sizes))
	}
	return out
}

// sizeOf is the size of what a run's snapshot or restart moved.
func sizeOf(r *result.Run, m *metric) int64 {
	switch {
	case r.StateBytes > 0 && r.Workload == m.workload():
		return r.StateBytes
	case (m == metricInstall || m == metricForeground) && r.Snapshot != nil:
		return r.Snapshot.Bytes
	case m.moved() && r.Restart != nil:
		return r.Restart.Bytes
	}
	return 0
}

// largest keeps the runs with the largest state among those that measured m:
// times of different sizes have no common median.
func largest(runs []*result.Run, m *metric) []*result.Run {
	var top int64 = -1
	var out []*result.Run
	for _, r := range runs {
		if _, ok := m.get(r); !ok {
			continue
		}
		size := r.StateBytes // snapshots of one state differ by some bytes
		if size > top {
			top, out = size, nil
		}
		if size == top {
			out = append(out, r)
		}
	}
	return out
}

// repeats is the number of runs (of blocks, where they hold laps) that the smallest
// row with figures has.
func (sc *scenario) repeats() int {
	n := 0
	for _, rw := range sc.rows {
		all := func(*result.Run) (float64, bool) { return 1, true }
		if k := len(stats.Replicates(rw.decisive(), all)); k > 0 && (n == 0 || k < n) {
			n = k
		}
	}
	return n
}

// decisive are the runs of a row that decide: those of its headline, and of them
// only those of the largest state where sizes differ, which are not repeats of
// each other.
func (rw *row) decisive() []*result.Run {
	runs := rw.headline()
	if m := rw.scenario.primary(); m.moved() {
		runs = largest(runs, m)
	}
	return runs
}

// primary is the figure that decides a scenario: what the load leaves free. A
// closed loop finds how much a backend can do; at a given rate every backend
// does the same amount, and response time tells them apart.
func (sc *scenario) primary() *metric {
	switch {
	case sc.workload == "snapshot":
		return metricInstall
	case sc.workload == "restart":
		return metricOpen
	case sc.kind == "open" || sc.kind == "poisson":
		return metricResponse99
	}
	return metricThroughput
}

// title describes the scenario in words: "64 closed-loop clients, 1 KiB values,
// 3 nodes, transport mem".
func (sc *scenario) title() string {
	parts := []string{sc.loadTitle()}
	if sc.workload != "" && sc.workload != "propose" {
		parts = append([]string{"workload " + clean(sc.workload)}, parts...)
	}
	if sc.killed {
		parts = append(parts, "after kill -9")
	}
	if v := sc.values(); v != "" {
		parts = append(parts, v+" values")
	}
	if sc.readRatio > 0 {
		parts = append(parts, quantity.Significant(100*sc.readRatio)+" % reads")
	}
	parts = append(parts, plural(sc.nodes, "node"))
	if sc.groups > 1 {
		parts = append(parts, plural(sc.groups, "raft group"))
	}
	if !sc.joins[joinTransport] {
		parts = append(parts, "transport "+clean(sc.transport))
	}
	if sc.loop != "" && sc.loop != "ready" {
		parts = append(parts, "loop "+clean(sc.loop))
	}
	if sc.slowDisk != "" {
		parts = append(parts, "slow disk "+clean(sc.slowDisk))
	}
	if sc.raft != "" && sc.raft != "node" {
		parts = append(parts, "raft driven as "+clean(sc.raft))
	}
	if sc.snapshots != "" {
		parts = append(parts, clean(sc.snapshots)+" snapshots")
	}
	if sc.placement != "" {
		parts = append(parts, "placement "+clean(sc.placement))
	}
	if sc.faults != "" {
		parts = append(parts, "with faults ("+clean(sc.faults)+")")
	}
	for setting := range strings.Lines(sc.settings) {
		if name, _, _ := strings.Cut(setting, " "); slices.Contains(sc.site.telling, name) {
			parts = append(parts, clean(strings.TrimSpace(setting)))
		}
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

func (sc *scenario) loadTitle() string {
	switch {
	case sc.search:
		return "search for the highest rate within " + sc.sloText()
	case sc.curve:
		return "load curve"
	case sc.kind == "closed":
		return plural(sc.clients, "closed-loop client")
	case sc.kind == "open":
		return "open loop at " + quantity.FormatCount(sc.rate) + " ops/s"
	case sc.kind == "poisson":
		return "Poisson arrivals at " + quantity.FormatCount(sc.rate) + " ops/s"
	case sc.kind == "trace":
		return "batches as they were recorded"
	}
	return clean(sc.kind)
}

func (sc *scenario) values() string {
	if sc.valueSize != "" && strings.Contains(sc.valueSize, "-") {
		return clean(sc.valueSize) + " B"
	}
	if sc.valueBytes <= 0 {
		return ""
	}
	return quantity.FormatBytes(float64(sc.valueBytes))
}

// engines are the rows that are candidates and have figures, synced ones first;
// kept apart from controls, which measure what is around an engine.
func (sc *scenario) engines() (synced, unsynced []*row) {
	for _, rw := range sc.rows {
		if rw.control != "" || len(rw.runs) == 0 {
			continue
		}
		if rw.durability == "none" {
			unsynced = append(unsynced, rw)
		} else {
			synced = append(synced, rw)
		}
	}
	return synced, unsynced
}

// ranked are the rows in the order of a table: by durability class, within it
// engines before controls, and by the primary figure.
func (sc *scenario) ranked() []*row {
	m := sc.primary()
	out := slices.Clone(sc.rows)
	figures := make(map[*row]summary, len(out))
	for _, rw := range out {
		figures[rw] = rw.of(m)
	}
	class := func(rw *row) int {
		c := 0
		if rw.durability == "none" {
			c = 2
		}
		if rw.control != "" {
			c++
		}
		return c
	}
	slices.SortStableFunc(out, func(a, b *row) int {
		if d := class(a) - class(b); d != 0 {
			return d
		}
		return ahead(m, figures[a], figures[b])
	})
	return out
}

// ahead orders two summaries of a metric, the better one first, quantity.Absent ones
// last.
func ahead(m *metric, a, b summary) int {
	switch {
	case a.N == 0 || b.N == 0:
		return b.N - a.N
	case a.Median == b.Median:
		return 0
	case (a.Median < b.Median) == m.lower():
		return -1
	}
	return 1
}

// verification is what reading back the runs of a row came to.
type verification struct {
	checked, failed    int // runs
	acked, lost, wrong int64
}

func (rw *row) verification() verification {
	var v verification
	for _, r := range rw.runs {
		if r.Verified == nil {
			continue
		}
		v.checked++
		v.acked, v.lost, v.wrong = v.acked+r.Verified.Acked, v.lost+r.Verified.Lost, v.wrong+r.Verified.Wrong
		if !r.Verified.OK || r.Verified.Lost > 0 || r.Verified.Wrong > 0 {
			v.failed++
		}
	}
	return v
}

// verified is the outcome as a cell of a table: "yes", "lost 3", or absent.
func (rw *row) verified() (text string, ok bool) {
	v := rw.verification()
	switch {
	case v.lost > 0 && v.wrong > 0:
		return fmt.Sprintf("lost %s, wrong %s", formatInt(v.lost), formatInt(v.wrong)), false
	case v.lost > 0:
		return "lost " + formatInt(v.lost), false
	case v.wrong > 0:
		return "wrong " + formatInt(v.wrong), false
	case v.failed > 0:
		return "failed", false
	case v.checked == 0:
		return quantity.Absent, true
	case v.checked < len(rw.runs):
		return fmt.Sprintf("%d of %d", v.checked, len(rw.runs)), true
	}
	return "yes", true
}

// cuts sums up what power cuts did to the backend of a row.
func (rw *row) cuts() (cuts int, bad int64) {
	for _, res := range rw.scenario.site.results {
		for _, p := range res.PowerCuts {
			if labelOf(p.Backend, p.Params) == rw.label {
				cuts += p.Cuts
				bad += p.Lost + p.Wrong + int64(p.OpenFailed)
			}
		}
	}
	return cuts, bad
}
