package reports

import (
	"fmt"
	"slices"
	"strconv"
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

	sc.rank(&j)
	return j
}

// rank writes the sentence about the engines, and what belongs under it.
func (sc *scenario) rank(j *Judgement) {
	field, unsynced := sc.engines()
	if len(field) == 0 {
		field, unsynced = unsynced, nil
	}
	field, liars := honest(field)
	field = slices.DeleteFunc(field, func(rw *row) bool { return rw.of(sc.primary()).N == 0 })
	var whole []string // what invalidates everything
	for _, r := range j.Reasons {
		if r.Severity == Invalidates && len(r.Spoiled) == 0 && r.Name != "lost" && r.Name != "powercut_lost" && r.Name != "run_failed" {
			whole = append(whole, r.Title)
		}
	}
	m := sc.primary()
	slices.SortStableFunc(field, func(a, b *row) int { return ahead(m, a.of(m), b.of(m)) })
	field = slices.DeleteFunc(field, func(rw *row) bool { return len(whole) == 0 && j.spoils(rw.label) })

	var c contest
	if len(field) > 0 {
		c = sc.contest(field)
	}
	switch {
	case len(liars) > 0:
		j.Sentence = sc.lostSentence(liars)
		c.preface("Among the others: ")
	case len(field) == 0:
		j.Sentence = sc.emptySentence()
	case len(whole) > 0:
		j.Sentence = "No conclusion: the measurement is invalid (" + list(whole) + ")."
		c.preface("For what it is worth: ")
		c.winner = ""
	default:
		j.Sentence, c.sentence = c.sentence, ""
	}
	if c.sentence != "" {
		j.Detail = append(j.Detail, c.sentence)
	}
	j.Detail, j.Winner = append(j.Detail, c.detail...), c.winner
	for _, r := range j.Reasons {
		if r.Severity == Invalidates && len(r.Spoiled) > 0 && len(whole) == 0 && r.Name != "lost" && r.Name != "powercut_lost" {
			j.Detail = append(j.Detail, fmt.Sprintf("%s %s left out: %s.", list(r.Spoiled), verbN(len(r.Spoiled), "is", "are"), r.Title))
		}
	}
	if names := sc.unfound(); sc.search && len(names) > 0 && len(field) > 0 {
		j.Detail = append(j.Detail, fmt.Sprintf("For %s no search found a rate.", list(names)))
	}
	if text, ok := sc.agedFinding(agedSave); ok {
		j.Detail = append(j.Detail, text+".")
	}
	if len(unsynced) > 0 {
		j.Detail = append(j.Detail, fmt.Sprintf("%s %s nothing durable and %s not ranked with the others.",
			list(labels(unsynced)), verb(unsynced, "keeps", "keep"), verb(unsynced, "is", "are")))
	}
}

// spoils reports whether a reason says that nothing can be said about a backend.
func (j *Judgement) spoils(label string) bool {
	return slices.ContainsFunc(j.Reasons, func(r Reason) bool { return slices.Contains(r.Spoiled, label) })
}

// honest splits off the rows that lost or changed what they had acknowledged, in
// a run or under power cuts.
func honest(rows []*row) (good, bad []*row) {
	for _, rw := range rows {
		_, ok := rw.verified()
		if _, cut := rw.cuts(); ok && cut == 0 {
			good = append(good, rw)
		} else {
			bad = append(bad, rw)
		}
	}
	return good, bad
}

// lostSentence says what the rows did to data that they had acknowledged.
func (sc *scenario) lostSentence(out []*row) string {
	var parts []string
	for _, rw := range out {
		v := rw.verification()
		var did []string
		if v.lost > 0 {
			did = append(did, "lost "+formatInt(v.lost))
		}
		if v.wrong > 0 {
			did = append(did, "changed "+formatInt(v.wrong))
		}
		switch cuts, bad := rw.cuts(); {
		case len(did) > 0:
			parts = append(parts, fmt.Sprintf("%s %s of %s acknowledged entries", rw.label, strings.Join(did, " and "), formatInt(v.acked)))
		case v.failed > 0:
			parts = append(parts, rw.label+" failed verification")
		case bad > 0:
			parts = append(parts, fmt.Sprintf("%s did not survive %s", rw.label, plural(cuts, "power cut")))
		}
	}
	return list(parts) + ": do not trust " + verb(out, "it", "them") + " with a raft log, at any speed."
}

// emptySentence says why there is no engine to rank.
func (sc *scenario) emptySentence() string {
	onlyControls := true
	for _, rw := range sc.rows {
		onlyControls = onlyControls && rw.control != ""
	}
	if onlyControls {
		return "No engine was run, only controls: there is nothing to rank."
	}
	for _, rw := range sc.rows {
		for _, r := range rw.failed {
			return "No engine has figures: " + rw.label + " failed with “" + shorten(clean(r.Error), 200) + "”."
		}
	}
	if sc.search {
		return sc.searchFinding() + "."
	}
	return "No engine has figures: " + sc.primary().long + " was not measured."
}

// contest is how the engines of a scenario stand to each other.
type contest struct {
	sentence string
	detail   []string
	winner   string
}

// preface puts words before the sentence, if there is one.
func (c *contest) preface(words string) {
	if c.sentence != "" {
		c.sentence = words + c.sentence
	}
}

// contest is about the order of engines, field[0] being the best.
func (sc *scenario) contest(field []*row) contest {
	best := field[0]
	if len(field) == 1 {
		return contest{sentence: fmt.Sprintf("%s %s %s; there is no other engine to compare it with.", best.label, sc.amount(best), sc.at())}
	}
	next := field[1]
	both := fmt.Sprintf("%s %s; %s %s.", best.label, sc.amount(best), next.label, sc.amount(next))
	if n := sc.repeats(); n < minRepeats {
		sentence := fmt.Sprintf("%s was ahead %s, %s, but %s %s nothing.", best.label, sc.at(), sc.margin(best, next, ""), repeatsText(n), verbN(n, "decides", "decide"))
		if sc.contradicted(best, next) {
			sentence = fmt.Sprintf("Nobody is ahead %s: %s has the better median, %s is better in most blocks, and %s %s nothing.", sc.at(), best.label, next.label,
				repeatsText(n), verbN(n, "decides", "decide"))
		}
		return contest{
			sentence: sentence,
			detail: []string{both, fmt.Sprintf("%s %s a smoke test: %d repeats decide, %d are fit to publish.",
				capital(repeatsText(n)), verbN(n, "is", "are"), enoughRepeats, publishRepeats)},
		}
	}
	even, behind, equivalent := sc.told(field)
	if len(even) == 0 {
		return contest{
			sentence: fmt.Sprintf("%s %s %s: %s.", best.label, sc.superlative(), sc.at(), sc.margin(best, next, ", the next")),
			detail:   []string{both}, winner: best.label,
		}
	}
	group := list(labels(append([]*row{best}, even...)))
	c := contest{
		sentence: fmt.Sprintf("No winner %s: %s cannot be told apart.", sc.at(), group),
		detail:   []string{fmt.Sprintf("%s is ahead of %s by %s, %s.", best.label, even[0].label, sc.factor(best, even[0]), sc.doubt(best, even[0]))},
	}
	if equivalent {
		c.sentence = fmt.Sprintf("%s are equivalent %s: no other differs from %s by more than %g %%.", group, sc.at(), best.label, 100*noise)
		c.detail = nil
	}
	c.detail = append(c.detail, both)
	if len(behind) > 0 {
		var parts []string
		for _, rw := range behind {
			parts = append(parts, rw.label+" by "+sc.factor(best, rw))
		}
		c.detail = append(c.detail, fmt.Sprintf("Certainly behind %s: %s.", best.label, list(parts)))
	}
	return c
}

// contradicted reports whether the ratios within the blocks, unlike the medians,
// have the other engine ahead.
func (sc *scenario) contradicted(best, other *row) bool {
	c, ok := sc.contrast(sc.primary(), best, other)
	return ok && (sc.primary().lower() && c.Ratio < 1 || !sc.primary().lower() && c.Ratio > 1)
}

// doubt says why a difference decides nothing: its interval covers 1, or the
// blocks are too few or too scattered for the tests.
func (sc *scenario) doubt(best, other *row) string {
	c, ok := sc.contrast(sc.primary(), best, other)
	if ok && (c.Lo > 1 || c.Hi > 0 && c.Hi < 1) {
		return fmt.Sprintf("but over %s no test excludes chance", plural(c.N, "block"))
	}
	return "which chance may explain"
}

// told sorts the engines after the best into those that cannot be told apart
// from it, all of them equivalent or not, and those that are certainly behind.
func (sc *scenario) told(field []*row) (even, behind []*row, equivalent bool) {
	equivalent = true
	for _, rw := range field[1:] {
		c, ok := sc.contrast(sc.primary(), field[0], rw)
		if ok && c.Verdict == stats.Slower {
			behind = append(behind, rw)
			continue
		}
		even = append(even, rw)
		equivalent = equivalent && ok && c.Verdict == stats.Equivalent
	}
	return even, behind, equivalent
}

// superlative is what the best engine is, by the deciding figure.
func (sc *scenario) superlative() string {
	if sc.search {
		return "holds the highest rate"
	}
	switch sc.primary() {
	case metricResponse99:
		return "answers soonest"
	case metricInstall:
		return "installs snapshots soonest"
	case metricOpen:
		return "restarts soonest"
	}
	return "is the fastest"
}

// margin says how far the best is ahead of another: "1.33× the throughput of
// pebble". apposition follows the name of the other.
func (sc *scenario) margin(best, other *row, apposition string) string {
	tail := apposition
	if tail != "" {
		tail += ","
	}
	switch sc.primary() {
	case metricResponse99:
		return fmt.Sprintf("the p99 of %s%s is %s as long", other.label, tail, sc.factor(best, other))
	case metricInstall, metricOpen:
		return fmt.Sprintf("%s%s takes %s as long", other.label, tail, sc.factor(best, other))
	}
	if sc.search {
		return fmt.Sprintf("%s that of %s%s", sc.factor(best, other), other.label, apposition)
	}
	return fmt.Sprintf("%s the throughput of %s%s", sc.factor(best, other), other.label, apposition)
}

// amount says what a row reached: "commits 26,536 ops/s (26,100 to 27,000)".
func (sc *scenario) amount(rw *row) string {
	m := sc.primary()
	s := rw.of(m)
	value := quantity.Format(s.Median, m.unit)
	if m == metricThroughput {
		value += " ops/s"
	}
	if s.Interval {
		value += " (" + quantity.Format(s.Lo, m.unit) + " to " + quantity.Format(s.Hi, m.unit) + ")"
	}
	switch m {
	case metricThroughput:
		if sc.search {
			return "holds it up to " + value
		}
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
	case sc.search:
		return "within " + sc.sloText()
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

// factor is how far best is ahead of other, above 1 whatever the direction of
// the deciding figure, with its interval.
func (sc *scenario) factor(best, other *row) string {
	c, ok := sc.contrast(sc.primary(), best, other)
	if !ok {
		return "an unknown factor (no block holds both)"
	}
	ratio, lo, hi := c.Ratio, c.Lo, c.Hi
	if !sc.primary().lower() {
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
		return fmt.Sprintf("The raw disk takes %s for a synced write of %s; no backend’s Save was measured against it.",
			quantity.FormatDuration(floor), quantity.FormatBytes(float64(sc.site.floorRows()[0].Bytes)))
	}
	return sc.floorText() + ": " + list(parts) + "."
}

// floorText says what the multiples of the disk's own speed are multiples of.
func (sc *scenario) floorText() string {
	if f, ok := sc.saveFloor(); ok {
		return f.text()
	}
	if rows := sc.site.floorRows(); len(rows) > 0 {
		floor, _ := sc.site.floor()
		return fmt.Sprintf("A synced raw write of %s takes %s on this disk. Median Save as a multiple of a raw write of its own size",
			quantity.FormatBytes(float64(rows[0].Bytes)), quantity.FormatDuration(floor))
	}
	return "Median Save as a multiple of a synced raw write of its own size"
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
			fmt.Fprintf(&b, " %s not.", capital(plural(runs-checked, "run")+verbN(runs-checked, " was", " were")))
		}
	}
	for _, rw := range sc.rows {
		if cuts, bad := rw.cuts(); cuts > 0 && bad == 0 {
			fmt.Fprintf(&b, " %s survived %s.", rw.label, plural(cuts, "power cut"))
		} else if cuts > 0 {
			fmt.Fprintf(&b, " %s did not survive %s.", rw.label, plural(cuts, "power cut"))
		}
	}
	if len(none) > 0 {
		fmt.Fprintf(&b, " %s would lose everything in a power cut (durability none) and %s apart.", list(none), verbN(len(none), "stands", "stand"))
	}
	return b.String()
}

func labels(rows []*row) []string {
	out := make([]string, len(rows))
	for i, rw := range rows {
		out[i] = rw.label
	}
	return out
}

func verb(rows []*row, one, many string) string { return verbN(len(rows), one, many) }

func verbN(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
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

func formatInt(n int64) string { return quantity.Group(strconv.FormatInt(max(n, 0), 10)) }
