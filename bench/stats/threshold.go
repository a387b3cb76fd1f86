package stats

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/result"
)

// Demand is one --threshold: a metric of a backend, or of every backend, that
// must lie below or above a limit.
type Demand struct {
	Expr    string // as given
	Backend string // normalised as by backends.FormatName; "" for every backend
	Metric  Metric
	Op      string  // "<", "<=", ">", ">="
	Limit   float64 // in the metric's unit
}

// Threshold parses a demand:
//
//	[backend:]metric op limit
//
//	etcd-wal:save.p99<5ms
//	bbolt[freelist=map]:throughput >= 10k/s
//	fsyncs_per_op<=1.2
//
// Metrics are those of [Lookup]. A limit on a time needs a unit (ns, us, ms, s,
// m, h); a size may have one (B, kB, KiB, …), a rate may end in /s, and counts,
// ratios and rates may be shortened with k, M or G.
func Threshold(expr string) (Demand, error) {
	d := Demand{Expr: strings.TrimSpace(expr)}
	fail := func(format string, args ...any) (Demand, error) {
		return Demand{}, fmt.Errorf("threshold %q: %s", expr, fmt.Sprintf(format, args...))
	}
	// No limit holds an operator, but a backend's parameter might.
	at := strings.LastIndexAny(d.Expr, "<>")
	if at < 0 {
		return fail("want [backend:]metric<limit, with <, <=, > or >=")
	}
	left, right := strings.TrimSpace(d.Expr[:at]), d.Expr[at+1:]
	d.Op = d.Expr[at : at+1]
	if rest, ok := strings.CutPrefix(right, "="); ok {
		d.Op, right = d.Op+"=", rest
	}
	metric := left
	if colon := strings.LastIndex(left, ":"); colon >= 0 {
		name, params, err := backends.ParseName(left[:colon])
		if err != nil {
			return fail("%v", err)
		}
		d.Backend, metric = backends.FormatName(name, params), left[colon+1:]
	}
	var err error
	if d.Metric, err = Lookup(strings.TrimSpace(metric)); err != nil {
		return fail("%v", err)
	}
	if d.Limit, err = parseLimit(strings.TrimSpace(right), d.Metric.Unit); err != nil {
		return fail("%v", err)
	}
	return d, nil
}

func parseLimit(s string, unit Unit) (float64, error) {
	if s == "" {
		return 0, fmt.Errorf("the limit is missing")
	}
	switch unit {
	case Nanoseconds:
		v, err := time.ParseDuration(s)
		if err != nil || v < 0 {
			return 0, fmt.Errorf("limit %q: want a time such as 5ms", s)
		}
		return float64(v), nil
	case Bytes:
		v, err := humanize.ParseBytes(s)
		if err != nil {
			return 0, fmt.Errorf("limit %q: want a size such as 64MiB", s)
		}
		return float64(v), nil
	case OpsPerSecond:
		s = strings.TrimSpace(strings.TrimSuffix(s, "/s"))
	}
	return parseNumber(s)
}

// parseNumber reads a plain number with an optional k, M or G.
func parseNumber(s string) (float64, error) {
	digits, factor := s, 1.0
	for suffix, f := range map[string]float64{"k": 1e3, "M": 1e6, "G": 1e9} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			digits, factor = strings.TrimSpace(rest), f
		}
	}
	// strconv also takes hexadecimal, infinities and underscores.
	plain := func(r rune) bool { return !strings.ContainsRune("0123456789.eE+-", r) }
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || strings.ContainsFunc(digits, plain) || v < 0 || math.IsInf(v*factor, 0) {
		return 0, fmt.Errorf("limit %q: want a number such as 1.5 or 20k", s)
	}
	return v * factor, nil
}

// Holds reports whether value, in the metric's unit, keeps the demand.
func (d Demand) Holds(value float64) bool {
	switch d.Op {
	case "<":
		return value < d.Limit
	case "<=":
		return value <= d.Limit
	case ">":
		return value > d.Limit
	default:
		return value >= d.Limit
	}
}

// matches: a demand on "bbolt" is one on every "bbolt[…]".
func (d Demand) matches(r *result.Run) bool {
	return d.Backend == "" || d.Backend == Name(r) || d.Backend == r.Backend
}

// Evaluate holds the demands against the runs: one row per demand and backend,
// demands in the order given and backends as they first appear. The value is the
// median over the repeats, of what should not happen (errors, lost entries) the worst
// of them; where a backend ran in several configurations, that of the one furthest on
// the wrong side. A percentile below a limit that too few operations lie beyond is not
// known ([Supported]): the longest of them takes its place. A demand is missed where a
// backend has no such figure, or a run without figures, or is not there at all: silence
// is no proof.
func Evaluate(demands []Demand, runs []result.Run) []result.Threshold {
	var out []result.Threshold
	for _, d := range demands {
		var names []string
		byName := map[string][]*result.Run{}
		for i := range runs {
			if r := &runs[i]; d.matches(r) {
				name := Name(r)
				if byName[name] == nil {
					names = append(names, name)
				}
				byName[name] = append(byName[name], r)
			}
		}
		if len(names) == 0 {
			out = append(out, result.Threshold{Expr: d.Expr, Backend: d.Backend, Reason: "no run of this backend"})
		}
		for _, name := range names {
			out = append(out, d.evaluate(name, byName[name]))
		}
	}
	return out
}

func (d Demand) evaluate(name string, runs []*result.Run) result.Threshold {
	t := result.Threshold{Expr: d.Expr, Backend: name}
	var configs []string
	values := map[string][]float64{}
	failed, still := 0, 0
	for _, r := range runs {
		if r.Error != "" {
			failed++
			continue
		}
		if v, ok := throughput.Get(r); ok && v == 0 && r.Lap == 0 { // a lap is a part of a block
			still++
		}
		if v, ok := d.value(r); ok {
			config := Config(r)
			if !slices.Contains(configs, config) {
				configs = append(configs, config)
			}
			values[config] = append(values[config], v)
		}
	}
	worstConfig := ""
	for _, config := range configs {
		v := d.over(values[config])
		if t.Value == nil || d.worse(v, *t.Value) {
			t.Value, worstConfig = &v, config
		}
	}
	switch {
	case failed > 0:
		t.Reason = fmt.Sprintf("%d of %d runs ended without figures", failed, len(runs))
	case still > 0:
		t.Reason = fmt.Sprintf("%d of %d runs committed nothing", still, len(runs))
	case t.Value == nil:
		t.Reason = d.Metric.Name + " was not measured"
	case d.Holds(*t.Value):
		t.OK = true
	default:
		t.Reason = fmt.Sprintf("%s is %s", d.Metric.Name, Format(*t.Value, d.Metric.Unit))
		if n := len(values[worstConfig]); n > 1 && !d.Metric.mishaps {
			t.Reason += fmt.Sprintf(" (median of %d runs)", n)
		} else if n > 1 {
			t.Reason += fmt.Sprintf(" (in one of %d runs)", n)
		}
		if slices.ContainsFunc(runs, d.thin) {
			t.Reason += ", the longest of too few operations for this percentile"
		}
		if len(configs) > 1 {
			t.Reason += " at " + worstConfig
		}
	}
	return t
}

// value is what is held against the limit.
func (d Demand) value(r *result.Run) (float64, bool) {
	v, ok := d.Metric.Get(r)
	if ok && d.thin(r) {
		v = max(v, float64(d.Metric.latency(r).Max))
	}
	return v, ok
}

// thin reports whether a limit from above is set to a percentile that too few operations
// lie beyond.
func (d Demand) thin(r *result.Run) bool {
	_, ok := d.Metric.Get(r)
	return ok && d.Op[0] == '<' && !d.Metric.Solid(r)
}

// over is the value of repeats.
func (d Demand) over(values []float64) float64 {
	if !d.Metric.mishaps {
		return Median(values)
	}
	worst := values[0]
	for _, v := range values {
		if d.worse(v, worst) {
			worst = v
		}
	}
	return worst
}

func (d Demand) worse(a, b float64) bool {
	if d.Op[0] == '<' {
		return a > b
	}
	return a < b
}

// Format renders a value for people, in three significant digits: "1.23 ms",
// "4.2 MiB", "12.3k/s", "0.98".
func Format(value float64, unit Unit) string {
	switch unit {
	case Nanoseconds:
		for _, step := range []struct {
			size float64
			name string
		}{{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}} {
			if math.Abs(value) >= step.size {
				return digits3(value/step.size) + " " + step.name
			}
		}
		return digits3(value) + " ns"
	case Bytes:
		if value < 0 {
			return "-" + humanize.IBytes(uint64(-value))
		}
		return humanize.IBytes(uint64(value))
	case OpsPerSecond:
		return short(value) + "/s"
	}
	return short(value)
}

// short writes 12300 as 12.3k.
func short(v float64) string {
	switch abs := math.Abs(v); {
	case abs >= 1e9:
		return digits3(v/1e9) + "G"
	case abs >= 1e6:
		return digits3(v/1e6) + "M"
	case abs >= 1e4:
		return digits3(v/1e3) + "k"
	}
	return digits3(v)
}

// digits3 keeps three significant digits, and all before the point.
func digits3(v float64) string {
	decimals := 2
	switch abs := math.Abs(v); {
	case abs >= 100 || v == math.Trunc(v):
		decimals = 0
	case abs >= 10:
		decimals = 1
	case abs < 0.1:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}
