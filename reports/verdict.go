package reports

import (
	"fmt"
	"slices"
	"strings"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// Validity says whether conclusions may be drawn.
type Validity int

const (
	// Valid: nothing speaks against the measurement.
	Valid Validity = iota
	// Doubtful: it holds, with the caveats in the reasons.
	Doubtful
	// Invalid: nothing may be concluded from it, or from part of it.
	Invalid
)

func (v Validity) String() string {
	return [...]string{"valid", "valid with caveats", "invalid"}[v]
}

// Judgement is what a scenario says, in words.
type Judgement struct {
	Scenario string // the load and cluster that it is about
	Sentence string // which backend, by how much, and whether that is certain
	// Detail adds, one sentence each, what the headline leaves out: the rest of
	// the field, what was lost, what stands apart.
	Detail   []string
	Distance string // how far the engines are from the raw disk
	Durable  string // what was verified, and which backends keep nothing
	Validity Validity
	Reasons  []Reason
	// Winner is the backend that the sentence names as certainly ahead; empty
	// where there is none.
	Winner string
}

// Verdict judges the first scenario of a result that compares backends, the one
// that its report opens with.
func Verdict(r *result.Result) Judgement {
	s := newSite([]*result.Result{r})
	return s.headline().judge()
}

// headline is the scenario that a report opens with: the first with engines to
// compare, else the first of all; nil where there are no runs.
func (s *site) headline() *scenario {
	for _, sc := range s.scenarios {
		if a, b := sc.engines(); len(a)+len(b) > 1 {
			return sc
		}
	}
	if len(s.scenarios) > 0 {
		return s.scenarios[0]
	}
	return nil
}

// judge puts a scenario into words.
func (sc *scenario) judge() Judgement {
	if sc == nil {
		return Judgement{Sentence: "Nothing was measured: the result holds no runs.", Validity: Invalid}
	}
	j := Judgement{Scenario: sc.title(), Reasons: sc.reasons()}
	for _, r := range j.Reasons {
		if r.Severity == Invalidates {
			j.Validity = Invalid
		} else if j.Validity == Valid {
			j.Validity = Doubtful
		}
	}
	j.Durable = sc.durability()
	j.Distance = sc.distance()

	synced, unsynced := sc.engines()
	field := synced
	if len(field) == 0 {
		field = unsynced
	} else if len(unsynced) > 0 {
		j.Detail = append(j.Detail, fmt.Sprintf("%s %s nothing durable and %s not ranked with the others.",
			list(labels(unsynced)), verb(unsynced, "keeps", "keep"), verb(unsynced, "is", "are")))
	}
	field, out := honest(field)
	for _, rw := range out {
		text, _ := rw.verified()
		j.Detail = append(j.Detail, fmt.Sprintf("%s is out of the ranking whatever its speed: verification says %q.", rw.label, text))
	}
	sc.rank(&j, field, out)
	return j
}

// honest splits off the rows that failed verification.
func honest(rows []*row) (good, bad []*row) {
	for _, rw := range rows {
		if _, ok := rw.verified(); ok {
			good = append(good, rw)
		} else {
			bad = append(bad, rw)
		}
	}
	return good, bad
}

// rank writes the sentence about the engines in field.
func (sc *scenario) rank(j *Judgement, field, out []*row) {
	m := sc.primary()
	field = slices.DeleteFunc(slices.Clone(field), func(rw *row) bool { return rw.of(m).N == 0 })
	slices.SortStableFunc(field, func(a, b *row) int { return ahead(m, a.of(m), b.of(m)) })

	switch {
	case len(out) > 0:
		j.Sentence = sc.lostSentence(out)
		if len(field) > 0 {
			j.Detail = append(j.Detail, "Among the others: "+sc.contest(j, field))
		}
	case len(field) == 0:
		j.Sentence = "No engine has figures: " + sc.emptyReason()
	case j.Validity == Invalid:
		j.Sentence = "No conclusion: the measurement is invalid (" + list(invalidTitles(j.Reasons)) + ")."
		j.Detail = append(j.Detail, "For what it is worth: "+sc.contest(j, field))
	default:
		j.Sentence = sc.contest(j, field)
	}
	if j.Validity == Invalid {
		j.Winner = ""
	}
}

func (sc *scenario) lostSentence(out []*row) string {
	var parts []string
	for _, rw := range out {
		var lost, wrong, acked int64
		for _, r := range rw.runs {
			if r.Verified != nil {
				lost, wrong, acked = lost+r.Verified.Lost, wrong+r.Verified.Wrong, acked+r.Verified.Acked
			}
		}
		switch {
		case lost > 0 && wrong > 0:
			parts = append(parts, fmt.Sprintf("%s lost %s and changed %s of %s acknowledged entries",
				rw.label, formatInt(lost), formatInt(wrong), formatInt(acked)))
		case wrong > 0:
			parts = append(parts, fmt.Sprintf("%s changed %s of %s acknowledged entries", rw.label, formatInt(wrong), formatInt(acked)))
		case lost > 0:
			parts = append(parts, fmt.Sprintf("%s lost %s of %s acknowledged entries", rw.label, formatInt(lost), formatInt(acked)))
		default:
			parts = append(parts, rw.label+" failed verification")
		}
	}
	return list(parts) + ": do not trust it with a raft log."
}

// emptyReason says why no row of the scenario has the deciding figure.
func (sc *scenario) emptyReason() string {
	for _, rw := range sc.rows {
		for _, r := range rw.failed {
			return rw.label + " failed with “" + shorten(clean(r.Error), 200) + "”."
		}
	}
	return "only controls were run, or " + sc.primary().long + " was not measured."
}

// contest is the sentence about the order of engines, field[0] being the best.
func (sc *scenario) contest(j *Judgement, field []*row) string {
	best := field[0]
	if len(field) == 1 {
		return fmt.Sprintf("%s %s %s; there is no other engine to compare it with.", best.label, sc.amount(best, true), sc.at())
	}
	m := sc.primary()
	var even, behind []*row // not told apart from the best; certainly behind it
	var unequal bool
	for _, rw := range field[1:] {
		c, ok := sc.contrast(m, best, rw)
		switch {
		case ok && c.Verdict == stats.Slower:
			behind = append(behind, rw)
		default:
			even = append(even, rw)
			unequal = unequal || !ok || c.Verdict != stats.Equivalent
		}
	}
	next := field[1]
	if n := sc.repeats(); n < minRepeats {
		j.Detail = append(j.Detail, fmt.Sprintf("%s are a smoke test: %d repeats decide, %d are fit to publish.", capital(repeatsText(n)), enoughRepeats, publishRepeats))
		return fmt.Sprintf("%s was %s ahead of %s %s, but %s decide nothing; it %s.",
			best.label, sc.ratioText(m, next, best), next.label, sc.at(), repeatsText(n), sc.amount(best, false))
	}
	if len(even) == 0 {
		j.Winner = best.label
		j.Detail = append(j.Detail, fmt.Sprintf("It %s. The next, %s, %s.", sc.amount(best, true), next.label, sc.amount(next, true)))
		return fmt.Sprintf("%s %s %s: %s ahead of %s, the next.", best.label, superlative(m), sc.at(), sc.ratioText(m, next, best), next.label)
	}
	group := append([]*row{best}, even...)
	if len(behind) > 0 {
		j.Detail = append(j.Detail, fmt.Sprintf("Certainly behind %s: %s.", best.label, sc.behindText(m, best, behind)))
	}
	if !unequal {
		return fmt.Sprintf("%s are equivalent %s: %s %s, and no other is more than %g %% from it.",
			list(labels(group)), sc.at(), best.label, sc.amount(best, true), 100*noise)
	}
	return fmt.Sprintf("No winner %s: %s cannot be told apart; %s is %s ahead of %s, which chance may explain.",
		sc.at(), list(labels(group)), best.label, sc.ratioText(m, even[0], best), even[0].label)
}

func superlative(m *metric) string {
	switch m {
	case metricThroughput:
		return "is the fastest"
	case metricResponse99:
		return "answers soonest"
	case metricInstall:
		return "installs snapshots soonest"
	case metricOpen:
		return "restarts soonest"
	}
	return "is ahead"
}

// amount says what a row reached, on request with its interval: "commits 26,536
// ops/s (26,100 to 27,000)".
func (sc *scenario) amount(rw *row, interval bool) string {
	m := sc.primary()
	s := rw.of(m)
	value := quantity.Format(s.Median, m.unit)
	if m == metricThroughput {
		value += " ops/s"
	}
	if interval && s.Interval {
		value += " (" + quantity.Format(s.Lo, m.unit) + " to " + quantity.Format(s.Hi, m.unit) + ")"
	}
	switch m {
	case metricThroughput:
		return "commits " + value
	case metricResponse99:
		return "answers 99 % within " + value
	case metricInstall:
		return "installs a snapshot in " + value
	case metricOpen:
		return "opens in " + value
	}
	return "reaches " + value
}

// at is the load in a sentence: "at 64 clients".
func (sc *scenario) at() string {
	switch {
	case sc.workload == "snapshot" || sc.workload == "restart":
		return "with " + firstOf(sc.stateText(), "this state")
	case sc.curve:
		return "at the best load of its curve"
	case sc.kind == "closed":
		return "at " + plural(sc.clients, "client")
	case sc.rate > 0:
		return "at " + quantity.FormatCount(sc.rate) + " offered ops/s"
	}
	return "at this load"
}

// stateText is the largest state that was moved: "64 MiB of state".
func (sc *scenario) stateText() string {
	var most int64
	for _, rw := range sc.rows {
		most = max(most, rw.of(sc.primary()).bytes)
	}
	if most <= 0 {
		return ""
	}
	what := " of state"
	if sc.workload == "restart" {
		what = " of log"
	}
	return quantity.FormatBytes(float64(most)) + what
}

// ratioText is how far best is ahead of other, as a factor above 1 with its
// interval, whatever the direction of the metric.
func (sc *scenario) ratioText(m *metric, other, best *row) string {
	c, ok := sc.contrast(m, best, other)
	if !ok {
		return "an unknown factor (no block holds both)"
	}
	ratio, lo, hi := c.Ratio, c.Lo, c.Hi
	if !m.lower() {
		ratio, lo, hi = invert(ratio), invert(hi), invert(lo)
	}
	text := quantity.Significant(ratio) + "×"
	if lo > 0 && hi > 0 {
		text += fmt.Sprintf(" (95 %% interval %s to %s)", quantity.Significant(lo), quantity.Significant(hi))
	}
	return text
}

func invert(v float64) float64 {
	if v <= 0 {
		return 0
	}
	return 1 / v
}

func (sc *scenario) behindText(m *metric, best *row, rows []*row) string {
	var parts []string
	for _, rw := range rows {
		parts = append(parts, rw.label+" by "+sc.ratioText(m, rw, best))
	}
	return list(parts)
}

// distance is the sentence about the raw disk.
func (sc *scenario) distance() string {
	floor, _ := sc.site.floor()
	var parts []string
	synced, _ := sc.engines()
	slices.SortStableFunc(synced, func(a, b *row) int { return ahead(metricFloor, a.of(metricFloor), b.of(metricFloor)) })
	for _, rw := range synced {
		if s := rw.of(metricFloor); s.N > 0 {
			parts = append(parts, fmt.Sprintf("%s %s×", rw.label, quantity.Significant(s.Median)))
		}
	}
	switch {
	case floor == 0 && len(parts) == 0:
		return "The raw disk was not measured, so the distance to its limit is unknown."
	case len(parts) == 0:
		return fmt.Sprintf("The raw disk takes %s for a synced write; no backend's Save was measured against it.", quantity.FormatDuration(floor))
	case floor == 0:
		return "Save as a multiple of a synced raw write of the same size: " + list(parts) + "."
	}
	return fmt.Sprintf("The raw disk takes %s for a small synced write. Save as a multiple of a raw write of the same size: %s.",
		quantity.FormatDuration(floor), list(parts))
}

// durability is the sentence about verification and durability classes.
func (sc *scenario) durability() string {
	var acked int64
	checked, runs := 0, 0
	var none []string
	for _, rw := range sc.rows {
		if rw.durability == "none" {
			none = append(none, rw.label)
		}
		for _, r := range rw.runs {
			runs++
			if r.Verified != nil {
				checked++
				acked += r.Verified.Acked
			}
		}
	}
	var b strings.Builder
	switch {
	case runs == 0:
		b.WriteString("Nothing was verified.")
	case checked == 0:
		b.WriteString("No run was read back after it ended: nothing shows that what was acknowledged was stored.")
	default:
		fmt.Fprintf(&b, "%s acknowledged entries of %s were read back and compared.", formatInt(acked), plural(checked, "run"))
		if checked < runs {
			fmt.Fprintf(&b, " %s not.", capital(plural(runs-checked, "run")+wasWere(runs-checked)))
		}
	}
	if len(none) > 0 {
		fmt.Fprintf(&b, " %s would lose everything in a power cut (durability none) and stands apart.", list(none))
	}
	return b.String()
}

func wasWere(n int) string {
	if n == 1 {
		return " was"
	}
	return " were"
}

func labels(rows []*row) []string {
	out := make([]string, len(rows))
	for i, rw := range rows {
		out[i] = rw.label
	}
	return out
}

func verb(rows []*row, one, many string) string {
	if len(rows) == 1 {
		return one
	}
	return many
}

func invalidTitles(reasons []Reason) []string {
	var out []string
	for _, r := range reasons {
		if r.Severity == Invalidates {
			out = append(out, r.Title)
		}
	}
	return out
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func repeatsText(n int) string {
	words := []string{"no", "one", "two", "three", "four", "five"}
	if n == 1 {
		return "one repeat"
	}
	if n < len(words) {
		return words[n] + " repeats"
	}
	return plural(n, "repeat")
}

func formatInt(n int64) string { return quantity.FormatCount(float64(n)) }
