package stats

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/raftbench/raftbench/bench/result"
)

// setting is something besides the backend in which runs may differ.
type setting struct {
	name  string
	value func(*result.Run) string
	// clear takes the setting out of a run, with what follows from it.
	clear func(*result.Run)
}

var settings = []setting{
	{"loop", func(r *result.Run) string { return r.Loop }, func(r *result.Run) { r.Loop = "" }},
	{"raft", func(r *result.Run) string { return cmp.Or(r.Raft, "node") }, func(r *result.Run) { r.Raft = "" }},
	{"transport", func(r *result.Run) string { return r.Transport }, func(r *result.Run) { r.Transport = "" }},
	{"batch", func(r *result.Run) string { return fmt.Sprint(r.Batch) }, func(r *result.Run) { r.Batch = 0 }},
	{"gomaxprocs", func(r *result.Run) string { return fmt.Sprint(r.GOMAXPROCS) }, func(r *result.Run) { r.GOMAXPROCS = 0 }},
	{"placement", func(r *result.Run) string { return cmp.Or(r.Placement, "in-process") }, func(r *result.Run) { r.Placement, r.GOMAXPROCS = "", 0 }},
	{"nodes", func(r *result.Run) string { return fmt.Sprint(r.Nodes) }, func(r *result.Run) { r.Nodes, r.GOMAXPROCS = 0, 0 }},
}

// Settings are the names that [CompareBy] takes.
func Settings() []string {
	names := make([]string, len(settings))
	for i, s := range settings {
		names[i] = s.name
	}
	return names
}

// CompareBy compares runs of the same backend, under the same load, that differ
// in one setting alone ("loop": "ready" against "async"), paired by block as in
// [Compare]. Baseline and Backend of the comparisons are the two values, Config
// names the backend.
func CompareBy(runs []result.Run, name, baseline, other string, opts Options) ([]result.Comparison, error) {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
	if i < 0 {
		return nil, fmt.Errorf("setting %q is not known: want one of %s", name, strings.Join(Settings(), ", "))
	}
	s := settings[i]
	var chosen []result.Run
	found := map[string]bool{}
	for _, r := range runs {
		v := s.value(&r)
		found[v] = true
		if v == baseline || v == other {
			chosen = append(chosen, r)
		}
	}
	for _, v := range []string{baseline, other} {
		if !found[v] {
			return nil, fmt.Errorf("no run with %s %q", name, v)
		}
	}
	groups := groupRuns(chosen, func(r *result.Run) (string, string) {
		rest := *r
		s.clear(&rest)
		return "backend=" + Name(r) + " " + Config(&rest), s.value(r)
	})
	return comparePairs(groups, baseline, opts)
}
