package faulty

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// A timeline is text:
//
//	timeline = [ event ] { ( ";" | newline ) [ event ] } .
//	event    = "at" duration ":" fault .
//	fault    = "cut"   links
//	         | "stall" links
//	         | "delay" links duration [ ( "±" | "+-" ) duration ]
//	         | "loss"  links number "%"
//	         | "rate"  links size "/s"
//	         | "heal"  [ links ]
//	         | "kill"  nodes
//	         | "start" [ nodes ] .
//	links    = link { " " link } .
//	link     = nodes "-" nodes        both ways, each of the left with each of the right
//	         | nodes ">" nodes        only from left to right
//	         | "*" .                  all links
//	nodes    = node { "," node } .
//	node     = number | "leader" | "*" .
//
// Durations are Go's (5s, 1m30s, 10ms), counted from the start of measuring; sizes
// are 10MiB, 1MB, 500kB. A "#" begins a comment that ends with the line. "leader" is
// who leads when the event comes, so what was done to a leader's links is best undone
// by a heal without links.
//
//	at 5s: cut leader-*; at 15s: heal
//	at 2s: delay 1-2,3 10ms±2ms; at 4s: loss 1>2 5%; at 6s: rate * 10MiB/s
//	at 5s: kill leader; at 8s: start
//
// "kill" and "start" are about nodes and are for whoever runs them: a Network does
// nothing at them. Without nodes, "start" is for all that were killed.

// Event is a change to some links at a point of time.
type Event struct {
	At    time.Duration // from the start of measuring
	Fault Fault
}

// Fault is what is done to links, or to nodes.
type Fault struct {
	Kind   Kind
	Nodes  NodeSet       // of Kill and Start; none of Start: all that were killed
	Links  []LinkSet     // none: all links
	Delay  time.Duration // of Delay
	Jitter time.Duration // of Delay: each message's delay is Delay ± up to Jitter
	Loss   float64       // of Loss, 0 to 1
	Rate   int64         // of Rate, bytes a second
}

// Kind tells faults apart.
type Kind string

// The kinds of faults; a link can have several at a time. Heal takes all away from
// links.
const (
	Cut   Kind = "cut"
	Stall Kind = "stall"
	Delay Kind = "delay"
	Loss  Kind = "loss"
	Rate  Kind = "rate"
	Heal  Kind = "heal"
	Kill  Kind = "kill"
	Start Kind = "start"
)

// OfNodes reports whether a fault is for whoever runs the nodes.
func (f Fault) OfNodes() bool { return f.Kind == Kill || f.Kind == Start }

// LinkSet is the links from each of From to each of To and, with Both, back.
type LinkSet struct {
	From, To NodeSet
	Both     bool
}

// NodeSet is some nodes.
type NodeSet struct {
	All    bool // the rest is empty then
	Leader bool
	IDs    []uint64
}

// Nodes is a set of given nodes.
func Nodes(ids ...uint64) NodeSet { return NodeSet{IDs: ids} }

// AllNodes is every node there is or will be.
var AllNodes = NodeSet{All: true}

// Between is the links of each node of a with each node of b, both ways.
func Between(a, b NodeSet) LinkSet { return LinkSet{From: a, To: b, Both: true} }

// OneWay is the links from each node of a to each node of b.
func OneWay(a, b NodeSet) LinkSet { return LinkSet{From: a, To: b} }

// Has reports whether a node is one of the set; leader is who leads, 0 for none.
func (s NodeSet) Has(id, leader uint64) bool {
	return s.All || (s.Leader && id == leader) || slices.Contains(s.IDs, id)
}

func (s LinkSet) has(from, to, leader uint64) bool {
	return (s.From.Has(from, leader) && s.To.Has(to, leader)) ||
		(s.Both && s.From.Has(to, leader) && s.To.Has(from, leader))
}

// affects reports whether a link is one of the fault's.
func (f Fault) affects(from, to, leader uint64) bool {
	return len(f.Links) == 0 || slices.ContainsFunc(f.Links, func(s LinkSet) bool { return s.has(from, to, leader) })
}

// NeedsLeader reports whether the fault depends on who leads.
func (f Fault) NeedsLeader() bool {
	return f.Nodes.Leader || slices.ContainsFunc(f.Links, func(s LinkSet) bool { return s.From.Leader || s.To.Leader })
}

// Timeline is events in the order of their time.
type Timeline []Event

// Parse reads a timeline, whose grammar is at the top of timeline.go. Events of the same
// time keep their order.
func Parse(text string) (Timeline, error) {
	var tl Timeline
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		for _, s := range strings.Split(line, ";") {
			if s = strings.TrimSpace(s); s == "" {
				continue
			}
			e, err := parseEvent(s)
			if err != nil {
				return nil, fmt.Errorf("timeline: line %d: %q: %w", i+1, s, err)
			}
			tl = append(tl, e)
		}
	}
	slices.SortStableFunc(tl, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	return tl, nil
}

func parseEvent(s string) (Event, error) {
	rest, ok := strings.CutPrefix(s, "at ")
	when, what, colon := strings.Cut(rest, ":")
	if !ok || !colon {
		return Event{}, fmt.Errorf(`want "at <duration>: <fault>"`)
	}
	at, err := parseDuration(strings.TrimSpace(when))
	if err != nil {
		return Event{}, err
	}
	f, err := parseFault(strings.Fields(what))
	return Event{At: at, Fault: f}, err
}

func parseFault(words []string) (f Fault, err error) {
	if len(words) == 0 {
		return f, fmt.Errorf("want a fault: cut, stall, delay, loss, rate, heal, kill or start")
	}
	f.Kind, words = Kind(words[0]), words[1:]
	if f.OfNodes() {
		return f.ofNodes(words)
	}
	var value string
	switch f.Kind {
	case Cut, Stall, Heal:
	case Delay, Loss, Rate:
		if len(words) < 2 {
			return f, fmt.Errorf("want %q, links and a value", f.Kind)
		}
		value, words = words[len(words)-1], words[:len(words)-1]
	default:
		return f, fmt.Errorf("unknown fault %q; known are cut, stall, delay, loss, rate, heal, kill and start", f.Kind)
	}
	if len(words) == 0 && f.Kind != Heal {
		return f, fmt.Errorf("%s what? Want links, such as 1-2,3 or 1>2 or *", f.Kind)
	}
	for _, w := range words {
		l, err := parseLink(w)
		if err != nil {
			return f, err
		}
		f.Links = append(f.Links, l)
	}
	switch f.Kind {
	case Delay:
		f.Delay, f.Jitter, err = parseDelay(value)
	case Loss:
		f.Loss, err = parseLoss(value)
	case Rate:
		f.Rate, err = parseRate(value)
	}
	return f, err
}

// ofNodes completes a fault that names nodes instead of links.
func (f Fault) ofNodes(words []string) (Fault, error) {
	switch {
	case len(words) == 0 && f.Kind == Start:
		return f, nil
	case len(words) != 1:
		return f, fmt.Errorf("%s what? Want nodes, such as 1 or 2,3 or leader", f.Kind)
	}
	var err error
	if f.Nodes, err = parseNodes(words[0]); err == nil && f.Kind == Start && f.Nodes.Leader {
		err = fmt.Errorf("who leads does not have to be started")
	}
	return f, err
}

func parseLink(w string) (LinkSet, error) {
	if w == "*" {
		return Between(AllNodes, AllNodes), nil
	}
	i := strings.IndexAny(w, "->")
	if i < 0 {
		return LinkSet{}, fmt.Errorf("%q is no link: want 1-2, 1>2 or *", w)
	}
	from, err := parseNodes(w[:i])
	if err != nil {
		return LinkSet{}, err
	}
	to, err := parseNodes(w[i+1:])
	return LinkSet{From: from, To: to, Both: w[i] == '-'}, err
}

func parseNodes(s string) (set NodeSet, err error) {
	for _, n := range strings.Split(s, ",") {
		switch n {
		case "*":
			set.All = true
		case "leader":
			set.Leader = true
		default:
			id, err := strconv.ParseUint(n, 10, 64)
			if err != nil || id == 0 {
				return set, fmt.Errorf("%q is no node: want a number from 1, leader or *", n)
			}
			if !slices.Contains(set.IDs, id) {
				set.IDs = append(set.IDs, id)
			}
		}
	}
	if set.All {
		return AllNodes, nil
	}
	return set, nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no duration: want 5s, 10ms, …", s)
	}
	return d, nil
}

func parseDelay(s string) (delay, jitter time.Duration, err error) {
	d, j, jittered := strings.Cut(strings.Replace(s, "+-", "±", 1), "±")
	if delay, err = parseDuration(d); err != nil {
		return 0, 0, err
	}
	if jittered {
		if jitter, err = parseDuration(j); err != nil {
			return 0, 0, err
		}
	}
	if jitter > delay {
		return 0, 0, fmt.Errorf("%q: the jitter exceeds the delay", s)
	}
	return delay, jitter, nil
}

func parseLoss(s string) (float64, error) {
	number, ok := strings.CutSuffix(s, "%")
	p, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(p >= 0 && p <= 100) {
		return 0, fmt.Errorf("%q is no loss: want 0%% to 100%%", s)
	}
	return p / 100, nil
}

func parseRate(s string) (int64, error) {
	size, ok := strings.CutSuffix(s, "/s")
	n, err := humanize.ParseBytes(size)
	if !ok || err != nil || n == 0 || n > math.MaxInt64 {
		return 0, fmt.Errorf("%q is no rate: want 10MiB/s, 500kB/s, …", s)
	}
	return int64(n), nil
}

// String is the timeline in the form that Parse reads, one event a line.
func (tl Timeline) String() string {
	var b strings.Builder
	for _, e := range tl {
		fmt.Fprintln(&b, e)
	}
	return b.String()
}

// String is the event in the form that Parse reads.
func (e Event) String() string { return "at " + e.At.String() + ": " + e.Fault.String() }

// String is the fault in the form that Parse reads.
func (f Fault) String() string {
	words := []string{string(f.Kind)}
	if f.OfNodes() {
		return strings.TrimSpace(string(f.Kind) + " " + f.Nodes.String())
	}
	for _, l := range f.Links {
		words = append(words, l.String())
	}
	if len(f.Links) == 0 && f.Kind != Heal {
		words = append(words, "*")
	}
	switch f.Kind {
	case Delay:
		value := f.Delay.String()
		if f.Jitter != 0 {
			value += "±" + f.Jitter.String()
		}
		words = append(words, value)
	case Loss:
		words = append(words, strconv.FormatFloat(f.Loss*100, 'g', -1, 64)+"%")
	case Rate:
		words = append(words, strconv.FormatInt(f.Rate, 10)+"B/s")
	}
	return strings.Join(words, " ")
}

// String is the links in the form that Parse reads.
func (s LinkSet) String() string {
	switch {
	case s.Both && s.From.All && s.To.All:
		return "*"
	case s.Both:
		return s.From.String() + "-" + s.To.String()
	default:
		return s.From.String() + ">" + s.To.String()
	}
}

// String is the nodes in the form that Parse reads.
func (s NodeSet) String() string {
	if s.All {
		return "*"
	}
	var words []string
	if s.Leader {
		words = append(words, "leader")
	}
	for _, id := range s.IDs {
		words = append(words, strconv.FormatUint(id, 10))
	}
	return strings.Join(words, ",")
}
