package stats

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/result"
)

// The verdicts. "Faster" and "slower" stand for better and worse in the metric's
// direction, also where the metric is not a time.
const (
	Faster       = "faster"
	Slower       = "slower"
	Equivalent   = "equivalent"
	Inconclusive = "inconclusive"
)

const (
	// DefaultNoise is the relative difference that is not worth a verdict.
	DefaultNoise = 0.03
	// MinBlocks is the fewest blocks (runs of a side in CompareSuites) that can
	// decide anything: with 5, the widest order-statistic interval of the median
	// has 93.75 % confidence.
	MinBlocks = 6
	// TestAlpha is what each of two tests may spend of the 5 %.
	TestAlpha = 0.025

	bootstrapRounds = 10_000
)

// DefaultMetrics are the names of the metrics that are compared if no others are
// named. Every further metric makes Holm's correction dearer for all.
var DefaultMetrics = []string{
	"throughput", "response.p50", "response.p99", "response.p999", "save.p50", "save.p99",
	"fsync.p50", "snapshot.install", "restart.open",
}

// Options of a comparison. The zero value is ready to use.
type Options struct {
	// Metrics by name; DefaultMetrics if empty. Metrics without a direction are
	// refused.
	Metrics []string
	// Show, if set, names those of Metrics whose comparisons are wanted. The others are
	// tested, because the correction counts them, and left out: a table is read in parts
	// without another verdict than it has as a whole.
	Show []string
	// Noise is the relative difference that is not worth a verdict; DefaultNoise
	// if 0.
	Noise float64
	// Seed of the bootstrap. The figures of one comparison depend on the seed
	// and on its own runs, not on what else is compared.
	Seed int64

	rounds int // of the bootstrap; fewer in simulations
}

func (o Options) resolve() (Options, []Metric, error) {
	if o.Noise == 0 {
		o.Noise = DefaultNoise
	}
	if o.rounds == 0 {
		o.rounds = bootstrapRounds
	}
	if o.Noise < 0 || o.Noise >= 1 {
		return o, nil, fmt.Errorf("noise %g: want a share between 0 and 1", o.Noise)
	}
	names := o.Metrics
	if len(names) == 0 {
		names = DefaultMetrics
	}
	chosen := make([]Metric, len(names))
	for i, name := range names {
		m, err := Lookup(name)
		if err != nil {
			return o, nil, err
		}
		if m.Better == Neither {
			return o, nil, fmt.Errorf("metric %s has no better direction and cannot be compared", m.Name)
		}
		chosen[i] = m
	}
	return o, chosen, nil
}

// Name of the backend of a run, parameters included: "bbolt[freelist=array]".
func Name(r *result.Run) string { return backends.FormatName(r.Backend, r.Params) }

// Config says what else but the backend a run was: runs are comparable where it
// is equal. The offered rate belongs to it, except in a search, where the rate is
// the outcome.
func Config(r *result.Run) string { return strings.Join(configParts(r), " ") }

// configParts are "name=value".
func configParts(r *result.Run) []string {
	var parts []string
	add := func(name, value string) {
		if value != "" && value != "0" {
			parts = append(parts, name+"="+value)
		}
	}
	add("workload", r.Workload)
	add("load", loadName(r.Load))
	value := r.ValueSize
	if value == "" {
		value = fmt.Sprint(r.ValueBytes)
	}
	add("value", value)
	add("state", fmt.Sprint(r.StateBytes))
	add("read-ratio", fmt.Sprint(r.ReadRatio))
	add("slow-disk", r.SlowDisk)
	add("transport", r.Transport)
	add("loop", r.Loop)
	add("nodes", fmt.Sprint(r.Nodes))
	add("placement", r.Placement)
	add("groups", fmt.Sprint(r.Groups))
	add("batch", fmt.Sprint(r.Batch))
	if r.Raft != "node" { // the default
		add("raft", r.Raft)
	}
	if r.SnapshotMode != "stream" { // the default
		add("snapshot", r.SnapshotMode)
	}
	add("gomaxprocs", fmt.Sprint(r.GOMAXPROCS))
	if r.Restart != nil && r.Restart.Killed {
		add("after", "kill")
	}
	if r.Faults != nil {
		add("faults", "{"+r.Faults.Timeline+"}")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Settings)) {
		if name != "gomaxprocs" { // it stands above, as it came out
			add(name, r.Settings[name])
		}
	}
	return parts
}

func loadName(l result.Load) string {
	var b strings.Builder
	b.WriteString(l.Kind)
	if l.Clients > 0 {
		fmt.Fprintf(&b, ":%d", l.Clients)
	}
	if l.SLO != "" {
		fmt.Fprintf(&b, ":%s", l.SLO)
	} else if l.Rate > 0 {
		fmt.Fprintf(&b, ":%g", l.Rate)
	}
	if l.Point != "" {
		fmt.Fprintf(&b, "@%s", l.Point)
	}
	return b.String()
}

// Usable reports whether a run may take part in a comparison: it ended with
// figures, and lost nothing. Flags do not exclude it; the reader is told of them.
func Usable(r *result.Run) bool {
	return r.Error == "" && (r.Verified == nil || r.Verified.OK)
}

// Compare gives every other backend's verdict against the backend named baseline
// ([Name]), per metric and per [Config], in the order in which they first appear
// in runs. Runs are paired by block (and by Run.Env, in a merged report); several
// runs of one backend in one block count as their median. Backends of different
// durability are not compared, and neither are percentiles that too few
// operations support.
func Compare(runs []result.Run, baseline string, opts Options) ([]result.Comparison, error) {
	if !slices.ContainsFunc(runs, func(r result.Run) bool { return Name(&r) == baseline }) {
		return nil, fmt.Errorf("no run of the baseline %q", baseline)
	}
	groups := groupRuns(runs, byBackend)
	table, err := comparePairs(groups, baseline, opts)
	if len(groups) == 1 {
		clearConfig(table)
	}
	return table, err
}

// comparePairs compares every series of every group with the one named baseline.
func comparePairs(groups []*group, baseline string, opts Options) ([]result.Comparison, error) {
	opts, chosen, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	var table []result.Comparison
	for _, g := range groups {
		base := g.find(baseline)
		if base == nil {
			continue
		}
		for _, other := range g.backends {
			if other == base || other.durability != base.durability {
				continue
			}
			for _, m := range chosen {
				if c, ok := comparePaired(m, base, other, opts, g.config); ok {
					c.Baseline, c.Backend, c.Config = baseline, other.name, g.config
					table = append(table, c)
				}
			}
		}
	}
	judge(table, opts.Noise)
	return slices.DeleteFunc(table, func(c result.Comparison) bool { return !opts.shows(c.Metric) }), nil
}

// shows reports whether comparisons of a metric, by its JSON name, are wanted.
func (o Options) shows(json string) bool {
	return len(o.Show) == 0 || slices.ContainsFunc(o.Show, func(name string) bool {
		m, err := Lookup(name)
		return err == nil && m.JSON == json
	})
}

// clearConfig drops what distinguishes nothing.
func clearConfig(table []result.Comparison) {
	for i := range table {
		table[i].Config = ""
	}
}

// group is the runs of one configuration.
type group struct {
	config   string
	backends []*series
}

// series is the runs of one backend in one configuration.
type series struct {
	name       string
	durability string
	runs       []*result.Run
}

func (g *group) find(name string) *series {
	for _, s := range g.backends {
		if s.name == name {
			return s
		}
	}
	return nil
}

// byBackend sorts runs by what they have in common (the group) and by what is
// compared (the name within it).
func byBackend(r *result.Run) (config, name string) { return Config(r), Name(r) }

func groupRuns(runs []result.Run, sort func(*result.Run) (config, name string)) []*group {
	var groups []*group
	byConfig := map[string]*group{}
	for i := range runs {
		r := &runs[i]
		if !Usable(r) {
			continue
		}
		config, name := sort(r)
		g := byConfig[config]
		if g == nil {
			g = &group{config: config}
			byConfig[config] = g
			groups = append(groups, g)
		}
		s := g.find(name)
		if s == nil {
			s = &series{name: name, durability: r.Durability}
			g.backends = append(g.backends, s)
		}
		s.runs = append(s.runs, r)
	}
	return groups
}

// blockID tells the blocks of merged results apart.
type blockID struct {
	env   string
	block int
}

// byBlock is the metric's value in each block; the order lists the blocks as they
// first appear.
func (s *series) byBlock(m Metric) (values map[blockID]float64, order []blockID) {
	return perBlock(s.runs, func(r *result.Run) (float64, bool) {
		v, _ := m.Get(r)
		return v, m.Solid(r) && v > 0 // no ratio can be taken of 0
	})
}

// stood reports whether a run, or most laps of a block, committed nothing. There is no ratio
// to it and no response time of it, and what is left of the others would speak for the
// store that stood.
func (s *series) stood() bool { return slices.Contains(Replicates(s.runs, throughput.Get), 0) }

// Replicates are the values that a statistic counts, in the order in which their
// blocks first appear: get of each run or, where a block holds laps, the median of
// the block, since what passes between two laps is less than what passes between
// two blocks. Runs for which get has nothing are left out.
func Replicates(runs []*result.Run, get func(*result.Run) (float64, bool)) []float64 {
	if !slices.ContainsFunc(runs, func(r *result.Run) bool { return r.Lap > 0 }) {
		var out []float64
		for _, r := range runs {
			if v, ok := get(r); ok {
				out = append(out, v)
			}
		}
		return out
	}
	values, order := perBlock(runs, get)
	out := make([]float64, len(order))
	for i, id := range order {
		out[i] = values[id]
	}
	return out
}

// perBlock is the median of what each block measured, and the blocks in the order in
// which they first appear.
func perBlock(runs []*result.Run, get func(*result.Run) (float64, bool)) (values map[blockID]float64, order []blockID) {
	all := map[blockID][]float64{}
	for _, r := range runs {
		v, ok := get(r)
		if !ok {
			continue
		}
		id := blockID{r.Env, r.Block}
		if len(all[id]) == 0 {
			order = append(order, id)
		}
		all[id] = append(all[id], v)
	}
	values = make(map[blockID]float64, len(all))
	for id, vs := range all {
		values[id] = medianInPlace(vs)
	}
	return values, order
}

// comparePaired fills all but the names and what needs the whole table.
func comparePaired(m Metric, base, other *series, opts Options, config string) (result.Comparison, bool) {
	baseValues, order := base.byBlock(m)
	otherValues, _ := other.byBlock(m)
	var a, b, ratios, logs []float64
	for _, id := range order {
		if y, ok := otherValues[id]; ok {
			x := baseValues[id]
			a, b = append(a, x), append(b, y)
			ratios, logs = append(ratios, y/x), append(logs, math.Log(y/x))
		}
	}
	if len(ratios) == 0 {
		return result.Comparison{}, false
	}
	c := result.Comparison{
		Metric: m.JSON, N: len(ratios), Ratio: Median(ratios),
		BaselineMedian: Median(a), BackendMedian: Median(b),
	}
	if c.N < MinBlocks || base.stood() || other.stood() {
		return c, true
	}
	c.P, c.PPaired = mannWhitney(a, b), pairedT(logs)
	if opts.shows(m.JSON) { // most of the time of a comparison
		rng := opts.rng(m.JSON, base.name, other.name, config)
		c.Lo, c.Hi = bootstrap(rng, opts.rounds, newMedianResampler(ratios).median)
		s := Summarize(ratios)
		c.Lo, c.Hi = min(c.Lo, s.Lo), max(c.Hi, s.Hi)
	}
	return c, true
}

// rng depends on the seed and on what is compared, so that a figure does not
// change because another metric was asked for as well.
func (o Options) rng(what ...string) *rand.Rand {
	h := fnv.New64a()
	for _, w := range what {
		h.Write([]byte(w))
		h.Write([]byte{0})
	}
	return rand.New(rand.NewPCG(uint64(o.Seed), h.Sum64()))
}

// judge corrects the p-values of a table and sets the verdicts.
func judge(table []result.Comparison, noise float64) {
	var tested []int
	var p, paired []float64
	for i := range table {
		table[i].Verdict = Inconclusive
		if c := table[i]; c.P > 0 {
			tested = append(tested, i)
			p = append(p, c.P)
			paired = append(paired, c.PPaired)
		}
	}
	p, paired = holm(p), holm(paired)
	for k, i := range tested {
		c := &table[i]
		c.PHolm = p[k]
		significant := c.PHolm <= TestAlpha
		if c.PPaired > 0 {
			c.PPairedHolm = paired[k]
			significant = significant || c.PPairedHolm <= TestAlpha
		}
		c.Verdict = verdict(*c, significant, noise)
	}
}

func verdict(c result.Comparison, significant bool, noise float64) string {
	m, err := Lookup(c.Metric)
	if err != nil {
		panic("stats: comparison of a metric that is not registered: " + c.Metric)
	}
	switch {
	case c.Lo >= 1-noise && c.Hi <= 1+noise:
		return Equivalent
	case !significant || c.Lo <= 1 && 1 <= c.Hi:
		return Inconclusive
	case (c.Lo > 1) == (m.Better == Higher):
		return Faster
	default:
		return Slower
	}
}

// Regression reports whether a comparison shows a change for the worse beyond
// tolerance (0.05 for 5 %): the verdict is slower, and the whole interval lies
// beyond it.
func Regression(c result.Comparison, tolerance float64) bool {
	if c.Verdict != Slower {
		return false
	}
	if m, err := Lookup(c.Metric); err == nil && m.Better == Higher {
		return c.Hi < 1-tolerance
	}
	return c.Lo > 1+tolerance
}
