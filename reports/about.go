package reports

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/chart"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// swatch is the sample of a style in a table.
func swatch(s chart.Style) string { return chart.Swatch(s) }

// aboutView is the last section: what the figures stand on.
type aboutView struct {
	ID          string
	Thresholds  *tableView
	Environment []field
	Modules     *tableView
	Warnings    []string
	Options     *tableView
	Floor       *tableView
	PowerCuts   *tableView
	Failures    *tableView
	Suites      []suiteView
	Notes       []string
	Flags       *tableView
}

type field struct{ Name, Value string }

// suiteView is one result: how to repeat it, and its data.
type suiteView struct {
	ID, When, Command string
	Seed              int64
	Runs              string
	File              string
	Data              template.URL
	Contents          string // what the download holds
}

func (b *builder) about() (aboutView, error) {
	s := b.site
	v := aboutView{ID: b.prefix + "about", Environment: environment(s.env), Modules: modules(s.env), Notes: slices.Clone(methodNotes), Flags: flagTable()}
	for _, w := range s.env.Warnings {
		v.Warnings = append(v.Warnings, clean(w))
	}
	v.Thresholds, v.Options, v.Floor = b.thresholds(), b.options(), b.floorTable()
	v.PowerCuts, v.Failures = b.powerCuts(), b.failures()
	budget := dataBudget / len(s.results)
	for _, r := range s.results {
		encoded, contents, err := embed(r, budget)
		if err != nil {
			return v, err
		}
		runs := plural(len(r.Runs), "run")
		if r.Planned > len(r.Runs) {
			runs += fmt.Sprintf(" of %d planned", r.Planned)
		}
		v.Suites = append(v.Suites, suiteView{ID: clean(r.ID), When: stamp(r.Started), Command: commandText(r.Command), Seed: r.Seed, Runs: runs,
			File: "raftbench-" + fileName(r.ID) + ".json.gz", Data: template.URL("data:application/gzip;base64," + encoded), Contents: contents}) //nolint:gosec // base64
		for _, k := range slices.Sorted(maps.Keys(r.Notes)) {
			v.Notes = append(v.Notes, clean(k+": "+r.Notes[k]))
		}
	}
	return v, nil
}

// flagTable is every flag that a run can carry.
func flagTable() *tableView {
	t := &tableView{Caption: "Flags", Head: []string{"flag", "weight", "meaning", "what to do"}}
	for _, f := range Flags {
		t.Rows = append(t.Rows, tableRow{"", []string{f.Title, f.Severity.String(), f.Meaning, f.Action}})
	}
	return t
}

// fileName makes an id fit for the name of a download.
func fileName(id string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, shorten(id, 64))
}

// dataBudget is the most that the results inside a page may take, in bytes of
// base64: with it a page of 14 backends and 20 runs stays under 1.5 MB.
const dataBudget = 500_000

// embed packs a result for the download inside the page. Where all of it would
// be too large, it leaves out first the histograms, then the heat maps, then the
// series, and says so. result.json has them all.
func embed(r *result.Result, budget int) (encoded, contents string, err error) {
	r = portable(r)
	for _, step := range []struct {
		contents string
		strip    func(*result.Run)
	}{
		{"everything that was recorded", func(*result.Run) {}},
		{"everything but the histograms; result.json has them", withoutHistograms},
		{"everything but histograms and heat maps; result.json has them", withoutBuckets},
		{"everything but histograms and time series; result.json has them", func(r *result.Run) { r.Series = nil }},
	} {
		c := *r
		c.Runs = slices.Clone(r.Runs)
		for i := range c.Runs {
			step.strip(&c.Runs[i])
		}
		r = &c
		packed, err := pack(r)
		if err != nil {
			return "", "", err
		}
		encoded, contents = packed, step.contents
		if len(encoded) <= budget {
			break
		}
	}
	return encoded, contents, nil
}

// pack compresses a result and encodes it for a URL.
func pack(r *result.Result) (string, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode result: %w", err)
	}
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err = z.Write(data); err == nil {
		err = z.Close()
	}
	if err != nil {
		return "", fmt.Errorf("compress result: %w", err)
	}
	return base64.StdEncoding.EncodeToString(buf.Bytes()), nil
}

func withoutHistograms(r *result.Run) {
	for _, l := range []*result.Latency{&r.Response, &r.Service, &r.Lag, &r.Reads, &r.Save} {
		l.Encoded = ""
	}
	if r.Fsync != nil {
		f := *r.Fsync
		f.Encoded, f.Nodes = "", slices.Clone(f.Nodes)
		for i := range f.Nodes {
			f.Nodes[i].Encoded = ""
		}
		r.Fsync = &f
	}
	r.Cycles = slices.Clone(r.Cycles)
	for i := range r.Cycles {
		r.Cycles[i].Save.Encoded = ""
	}
}

func withoutBuckets(r *result.Run) {
	r.Series = slices.Clone(r.Series)
	for i := range r.Series {
		r.Series[i].Buckets = nil
	}
}

func environment(e result.Env) []field {
	var out []field
	add := func(name, value string) {
		if value = clean(value); value != "" {
			out = append(out, field{clean(name), value})
		}
	}
	size := func(n int64) string {
		if n <= 0 {
			return ""
		}
		return quantity.FormatBytes(float64(n))
	}
	add("Host", e.Hostname)
	add("System", strings.TrimSpace(e.OS+" "+e.Arch+" "+e.Kernel))
	add("Virtualisation", e.Virtualization)
	cpu := e.CPU
	if e.Cores > 0 {
		cpu += ", " + plural(e.Cores, "core")
	}
	if e.CPUQuota > 0 && quantity.Usable(e.CPUQuota) {
		cpu += fmt.Sprintf(", limited to %s", quantity.Significant(e.CPUQuota))
	}
	add("CPU", strings.TrimPrefix(cpu, ", "))
	add("CPU scheduling", e.CPUScheduling)
	memory := size(e.MemoryBytes)
	if l := size(e.MemoryLimit); l != "" {
		memory += ", limited to " + l
	}
	add("Memory", strings.TrimPrefix(memory, ", "))
	add("File system", strings.TrimSpace(e.FileSystem+" "+parenthesis(strings.ReplaceAll(e.MountOptions, ",", ", "))))
	device := []string{e.Device, e.Model, rotational(e.Rotational)}
	add("Device", strings.Join(slices.DeleteFunc(device, func(s string) bool { return s == "" }), ", "))
	add("I/O scheduler", e.Scheduler)
	add("Write cache", e.WriteCache)
	add("Free space", size(e.FreeBytes))
	add("Directory", e.Dir)
	add("Go", e.Go)
	if e.GOMAXPROCS > 0 {
		add("GOMAXPROCS", strconv.Itoa(e.GOMAXPROCS)+" unless a run sets another, see Options")
	}
	add("GOGC", e.GOGC)
	commit := e.Commit
	if e.Dirty {
		commit += " with changes"
	}
	if e.Build != "" {
		commit += ", build " + e.Build
	}
	add("raftbench", strings.TrimSpace(e.Version+" "+commit))
	add("Busy before", pressureText(e.Before))
	add("Busy after", pressureText(e.After))
	return out
}

// modules are the versions that the program was built from.
func modules(e result.Env) *tableView {
	t := &tableView{Caption: "Modules that the program was built from", Head: []string{"module", "version"}}
	for _, m := range slices.Sorted(maps.Keys(e.Modules)) {
		t.Rows = append(t.Rows, tableRow{"", []string{clean(m), clean(e.Modules[m])}})
	}
	return orNil(t)
}

func parenthesis(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}

func rotational(r *bool) string {
	switch {
	case r == nil:
		return ""
	case *r:
		return "rotational by the kernel’s account"
	}
	return "not rotational"
}

// pressureText is how busy the machine was.
func pressureText(p *result.Pressure) string {
	if p == nil {
		return ""
	}
	parts := []string{"load " + strconv.FormatFloat(p.Load1, 'f', 2, 64)}
	add := func(name string, v *float64, scale float64) {
		if v != nil && quantity.Usable(*v) {
			parts = append(parts, fmt.Sprintf("%s %.1f %%", name, *v*scale))
		}
	}
	add("CPU pressure", p.CPUSome10, 1)
	add("I/O pressure", p.IOSome10, 1)
	add("memory pressure", p.MemSome10, 1)
	add("steal", p.StealShare, 100)
	return strings.Join(parts, ", ")
}

func (b *builder) thresholds() *tableView {
	t := &tableView{Caption: "Thresholds", Head: []string{"demand", "backend", "measured", "outcome"}}
	for _, r := range b.site.results {
		for _, th := range r.Thresholds {
			value, outcome := quantity.Absent, "missed"
			if th.Value != nil {
				value = thresholdValue(th)
			}
			if th.OK {
				outcome = "met"
			}
			if th.Reason != "" {
				outcome += ": " + clean(th.Reason)
			}
			t.Rows = append(t.Rows, tableRow{"", []string{clean(th.Expr), clean(th.Backend), value, outcome}})
		}
	}
	return orNil(t)
}

// thresholdValue renders the measured value in the unit of the metric that the
// demand names.
func thresholdValue(th result.Threshold) string {
	expr := th.Expr
	if _, after, ok := strings.Cut(expr, ":"); ok {
		expr = after
	}
	name := strings.TrimSpace(expr[:max(strings.IndexAny(expr+"<", "<>="), 0)])
	return quantity.Format(*th.Value, unitOfMetric(name))
}

func orNil(t *tableView) *tableView {
	if len(t.Rows) == 0 {
		return nil
	}
	return t
}

// options lists every backend with its parameters.
func (b *builder) options() *tableView {
	t := &tableView{Caption: "Backends and their options; what is not listed is the default of raftbench list", Head: []string{"backend", "durability", "options", "GOMAXPROCS", "batch", "measured"}}
	seen := map[string]bool{}
	for _, sc := range b.site.scenarios {
		for _, rw := range sc.ranked() {
			if seen[rw.label+rw.durability] {
				continue
			}
			seen[rw.label+rw.durability] = true
			var kv []string
			for _, k := range slices.Sorted(maps.Keys(rw.params)) {
				kv = append(kv, clean(k+"="+rw.params[k]))
			}
			options := firstOf(strings.Join(kv, " "), "defaults")
			if chosen := chosenText(rw); chosen != "" {
				options += "; chosen by the backend: " + chosen
			}
			r := firstRun(rw)
			t.Rows = append(t.Rows, tableRow{b.number(rw), []string{clean(rw.backend), clean(rw.durability), options,
				countOrAbsent(r.GOMAXPROCS), countOrAbsent(r.Batch), measuredText(rw)}})
		}
	}
	return orNil(t)
}

// chosenText is what settings a backend chose itself; where runs differ, in how many.
func chosenText(rw *row) string {
	runs := map[string]int{}
	for _, r := range rw.runs {
		for k, v := range r.Chosen {
			runs[k+"="+v]++
		}
	}
	var out []string
	for _, kv := range slices.Sorted(maps.Keys(runs)) {
		text := clean(kv)
		if n := runs[kv]; n < len(rw.runs) {
			text += fmt.Sprintf(" (%d of %d runs)", n, len(rw.runs))
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

// measuredText is how long each run of a row was measured, after its warm-up.
func measuredText(rw *row) string {
	var all []float64
	for _, r := range rw.runs {
		if r.Elapsed > 0 {
			all = append(all, float64(r.Elapsed))
		}
	}
	if len(all) == 0 {
		return quantity.Absent
	}
	return plural(len(all), "run") + " of " + quantity.FormatDuration(stats.Median(all))
}

func firstRun(rw *row) *result.Run {
	for _, r := range slices.Concat(rw.runs, rw.failed) {
		return r
	}
	return &result.Run{}
}

func countOrAbsent(n int) string {
	if n <= 0 {
		return quantity.Absent
	}
	return strconv.Itoa(n)
}

// floorTable is the calibrations, medians over all of one kind and size.
func (b *builder) floorTable() *tableView {
	t := &tableView{Caption: "The raw disk, median of all calibrations", Head: []string{"write", "size", "p50", "p99", "writes/s", "calibrations", "lowest p50", "highest p50"}}
	type key struct {
		kind string
		size int
	}
	var order []key
	rows := map[key][]result.Calibration{}
	for _, r := range b.site.results {
		for _, c := range r.Calibration {
			k := key{c.Kind, c.Bytes}
			if rows[k] == nil {
				order = append(order, k)
			}
			rows[k] = append(rows[k], c)
		}
	}
	for _, k := range order {
		var p50, p99, iops []float64
		for _, c := range rows[k] {
			p50, p99 = append(p50, float64(c.P50)), append(p99, float64(c.P99))
			if c.IOPS > 0 {
				iops = append(iops, c.IOPS)
			}
		}
		t.Rows = append(t.Rows, tableRow{"", []string{clean(k.kind), quantity.FormatBytes(float64(max(k.size, 0))), durationOrAbsent(stats.Median(p50)),
			durationOrAbsent(stats.Median(p99)), quantity.Format(stats.Median(iops), quantity.Rate), strconv.Itoa(len(p50)),
			durationOrAbsent(slices.Min(p50)), durationOrAbsent(slices.Max(p50))}})
	}
	return orNil(t)
}

func (b *builder) powerCuts() *tableView {
	t := &tableView{Caption: "Power cuts", Head: []string{"backend", "mode", "cuts", "acknowledged", "lost", "wrong", "failed to open", "first bad cut", "replay"}}
	for _, r := range b.site.results {
		for _, p := range r.PowerCuts {
			first := quantity.Absent
			if p.FirstBad > 0 {
				first = strconv.Itoa(p.FirstBad)
			}
			t.Rows = append(t.Rows, tableRow{"", []string{labelOf(p.Backend, p.Params), clean(p.Mode), strconv.Itoa(p.Cuts), formatInt(p.Acked), formatInt(p.Lost),
				formatInt(p.Wrong), strconv.Itoa(p.OpenFailed), first, firstOf(clean(p.Replay), quantity.Absent)}})
		}
	}
	return orNil(t)
}

// failures lists the runs that ended without figures, and what verification
// found.
func (b *builder) failures() *tableView {
	t := &tableView{Caption: "Runs that failed", Head: []string{"run", "backend", "what happened"}}
	for _, r := range b.site.runs {
		var what []string
		if r.Error != "" {
			what = append(what, shorten(clean(r.Error), 1000))
		}
		if v := r.Verified; v != nil && !v.OK {
			what = append(what, fmt.Sprintf("verification: %s lost, %s wrong of %s acknowledged. %s", formatInt(v.Lost), formatInt(v.Wrong), formatInt(v.Acked), shorten(clean(v.Detail), 1000)))
		}
		if len(what) > 0 {
			t.Rows = append(t.Rows, tableRow{"", []string{clean(r.ID), labelOf(r.Backend, r.Params), strings.Join(what, " ")}})
		}
	}
	return orNil(t)
}
