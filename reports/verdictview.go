package reports

import (
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// verdictView is the first section of a site: what a reader must know in half a
// minute.
type verdictView struct {
	ID string
	Judgement
	Badge, BadgeClass string
	Others            []Judgement // of the further scenarios
	Distances         []distanceView
	FloorText         string
	FloorNote         string // what a multiple above 1 is made of
	Checked           string // what would have made the result invalid, and was not seen
	Sure              string
	ReasonViews       []reasonView
}

// distanceView is one backend's bar in the card of distances from the disk.
type distanceView struct {
	Style   string
	Colour  string // CSS class
	Swatch  template.HTML
	Label   string
	Text    string
	Percent int // of the longest
}

type reasonView struct {
	Reason
	Class string
}

func (b *builder) verdict() verdictView {
	sc := b.site.headline()
	v := verdictView{ID: b.prefix + "verdict", Judgement: sc.judge()}
	v.Badge, v.BadgeClass = v.badge(), [...]string{"good", "warn", "bad"}[v.Validity]
	for _, r := range v.Reasons {
		class := "warn"
		if r.Severity == Invalidates {
			class = "bad"
		}
		v.ReasonViews = append(v.ReasonViews, reasonView{r, class})
	}
	for _, other := range b.site.scenarios {
		if other != sc {
			v.Others = append(v.Others, other.judge())
		}
	}
	if sc == nil {
		return v
	}
	v.Sure = sc.sure(v.Judgement)
	v.Checked = sc.checked(v.Judgement)
	b.distances(sc, &v)
	return v
}

// badge is the validity in a word or two.
func (j Judgement) badge() string {
	part := j.Validity == Invalid
	for _, r := range j.Reasons {
		if r.Name == "lost" || r.Name == "powercut_lost" {
			return "Data lost"
		}
		part = part && (r.Severity != Invalidates || len(r.Spoiled) > 0)
	}
	if part && len(j.Reasons) > 0 {
		return "Invalid in part"
	}
	return capital(j.Validity.String())
}

// distances are the engines by their multiple of the device floor, nearest
// first.
func (b *builder) distances(sc *scenario, v *verdictView) {
	synced, _ := sc.engines()
	slices.SortStableFunc(synced, func(a, b *row) int { return ahead(metricFloor, a.of(metricFloor), b.of(metricFloor)) })
	top := 1.0
	for _, rw := range synced {
		top = max(top, rw.of(metricFloor).Median)
	}
	for _, rw := range synced {
		s := rw.of(metricFloor)
		if s.N == 0 {
			continue
		}
		v.Distances = append(v.Distances, distanceView{b.number(rw), b.of(rw).Colour(), template.HTML(swatch(b.of(rw))), rw.label, //nolint:gosec // no text in it
			quantity.Significant(s.Median) + "×", int(100 * s.Median / top)})
	}
	v.FloorText = sc.floorText() + ":"
	if len(v.Distances) == 0 {
		v.FloorText = v.Distance
		return
	}
	v.FloorNote = sc.floorNote()
}

// floorNote says what the multiples hold besides the engine. The control raw, a
// bare file under the same cluster, shows it.
func (sc *scenario) floorNote() string {
	alone := "The raw write had the disk for itself"
	if sc.nodes > 1 && sc.placement == "" {
		alone += fmt.Sprintf("; here %d nodes share it", sc.nodes)
	}
	synced, _ := sc.engines()
	for _, rw := range synced {
		if s := rw.of(metricFloor); s.N > 0 && s.Median < 1 {
			return fmt.Sprintf("%s. No store is faster than its disk: under 1× (%s) the disk was slower while it was calibrated than during the run.", alone, rw.label)
		}
	}
	for _, rw := range sc.rows {
		if s := rw.of(metricFloor); rw.backend == "raw" && s.N > 0 {
			past := ""
			if !slices.ContainsFunc(rw.runs, func(r *result.Run) bool { return firstOf(r.Chosen["io"], r.Params["io"]) != "direct" }) {
				past = ", which writes past the page cache,"
			}
			return fmt.Sprintf("%s: a bare file in the place of an engine (raw)%s is at %s×, about as near as one can come at this load.", alone, past, quantity.Significant(s.Median))
		}
	}
	return alone + ", so that not all of a multiple is the engine’s doing."
}

// checked names what would make a result invalid and was looked for in vain.
func (sc *scenario) checked(j Judgement) string {
	seen := func(name string) bool {
		return slices.ContainsFunc(j.Reasons, func(r Reason) bool { return r.Name == name })
	}
	var inOrder []string
	for _, c := range []struct {
		flag, text string
		looked     bool
	}{
		{"lost", "no acknowledged entry was lost", !seen("not_verified")}, {"run_failed", "no run failed", true},
		{"not_verified", "every store was read back", true},
		{"fake_disk", "the disk is slow enough to be keeping what it is given", !seen("floor_missing")},
		{"tmpfs", "the data directory is not in memory", sc.site.env.FileSystem != ""},
		{"generator_limited", "the load was sent on time", sc.lagged()},
	} {
		if c.looked && !seen(c.flag) {
			inOrder = append(inOrder, c.text)
		}
	}
	return "Looked for, as it would make the result invalid, and found in order: " + strings.Join(inOrder, "; ") + "."
}

// lagged reports whether it was measured how late operations were sent. In a closed
// loop there is no time at which they should have been.
func (sc *scenario) lagged() bool {
	return slices.ContainsFunc(sc.rows, func(rw *row) bool {
		return slices.ContainsFunc(rw.judged(), func(r *result.Run) bool { return r.Lag.Count > 0 })
	})
}

// sure says how certain the verdict is, and by which rule.
func (sc *scenario) sure(j Judgement) string {
	n := sc.repeats()
	switch {
	case n == 0:
		return "Not at all: no run has figures."
	case n < minRepeats:
		return fmt.Sprintf("Not at all: %s, and under %d no difference can be called certain.", repeatsText(n), minRepeats)
	case j.Winner != "":
		text := fmt.Sprintf("Certain by the rule of this report: over %s the 95 %% interval of the ratio to every other engine excludes 1, and a test corrected for reading many of them agrees.", plural(n, "block"))
		if n < enoughRepeats {
			text += fmt.Sprintf(" %d repeats are few: %d decide, %d publish.", n, enoughRepeats, publishRepeats)
		}
		return text
	}
	field := sc.field()
	if len(field) < 2 {
		return plural(n, "run") + " of it; there is nothing to compare."
	}
	even, _, equivalent := sc.told(field)
	switch {
	case len(even) == 0: // and yet no winner: the measurement is invalid
		return "Not usable: the difference is clear, but the measurement is invalid, for the reasons below."
	case equivalent:
		return fmt.Sprintf("Yes, that there is nothing to choose: over %s the 95 %% interval of every ratio in this group lies within ±%g %% of 1.", plural(n, "block"), 100*noise)
	}
	return fmt.Sprintf("Not certain: over %s the ratio of %s to %s is %s, %s. More repeats may tell them apart.", plural(n, "block"), field[0].label, even[0].label,
		sc.factor(field[0], even[0]), sc.doubt(field[0], even[0]))
}

// field are the engines of the headline's class that have the deciding figure, the
// best first.
func (sc *scenario) field() []*row {
	field, unsynced := sc.engines()
	if len(field) == 0 {
		field = unsynced
	}
	m := sc.primary()
	field = slices.DeleteFunc(field, func(rw *row) bool { return rw.of(m).N == 0 })
	slices.SortStableFunc(field, func(a, b *row) int { return ahead(m, a.of(m), b.of(m)) })
	return field
}

// across is the table of what several machines have in common: throughput, and
// the multiple of each machine's own floor, which travels where milliseconds do
// not.
func across(sites []*site, p *palette) *figureView {
	t := &tableView{Caption: "The machines side by side", Head: []string{"backend"}}
	for _, s := range sites {
		name := clean(firstOf(s.env.Hostname, "machine "+strconv.Itoa(len(t.Head))))
		t.Head = append(t.Head, name+": × floor", name+": "+s.headlineMetric().title)
	}
	for _, label := range p.labels {
		line := tableRow{Style: strconv.Itoa(int(p.styles[label])), Cells: []string{label}}
		for _, s := range sites {
			floor, primary := quantity.Absent, quantity.Absent
			if sc := s.headline(); sc != nil {
				for _, rw := range sc.rows {
					if rw.label != label {
						continue
					}
					if f := rw.of(metricFloor); f.N > 0 {
						floor = quantity.Format(f.Median, quantity.Ratio)
					}
					if v := rw.of(sc.primary()); v.N > 0 {
						primary = quantity.Format(v.Median, sc.primary().unit)
					}
				}
			}
			line.Cells = append(line.Cells, floor, primary)
		}
		t.Rows = append(t.Rows, line)
	}
	return &figureView{Finding: "Side by side, never pooled",
		Note:  "Medians at the load that each opens with. Save as a multiple of each machine’s own raw disk (× floor) can be compared between machines; absolute figures cannot.",
		Table: t}
}

// headlineMetric is the figure that decides the site's first scenario.
func (s *site) headlineMetric() *metric {
	if sc := s.headline(); sc != nil {
		return sc.primary()
	}
	return metricThroughput
}
