package reports

import (
	"fmt"
	"slices"

	"github.com/raftbench/raftbench/bench/result"
)

// Group is the results of one environment: the same machine, disk, file system
// and build. Only they are compared with each other.
type Group struct {
	Env     result.Env // of the first of them
	Results []*result.Result
}

// Merge sorts results by environment, in the order in which they are given.
// Where an environment has several, their runs carry the id of the result that
// they come from in Run.Env, so that blocks are not mixed up; the results given
// are not changed. A result that is given twice counts once.
func Merge(rs []*result.Result) []Group {
	var out []Group
	index := map[string]int{}
	seen := map[string]bool{}
	for _, r := range rs {
		if r == nil || r.ID != "" && seen[r.ID] {
			continue
		}
		seen[r.ID] = true
		key := envKey(r)
		i, ok := index[key]
		if !ok {
			i = len(out)
			index[key] = i
			out = append(out, Group{Env: r.Env})
		}
		out[i].Results = append(out[i].Results, r)
	}
	for i := range out {
		if len(out[i].Results) < 2 {
			continue
		}
		for j, r := range out[i].Results {
			out[i].Results[j] = withEnv(r, j)
		}
	}
	return out
}

// withEnv copies r, its runs marked with where they come from.
func withEnv(r *result.Result, n int) *result.Result {
	id := r.ID
	if id == "" {
		id = fmt.Sprintf("#%d", n+1)
	}
	c := *r
	c.Runs = slices.Clone(r.Runs)
	for k := range c.Runs {
		if c.Runs[k].Env == "" {
			c.Runs[k].Env = id
		}
	}
	return &c
}

// envKey is equal for results that may be pooled; a build from changed sources of which
// nothing else is known is like no other.
func envKey(r *result.Result) string {
	key := fmt.Sprintf("%#v", []any{r.Env.Version, r.Conditions()})
	if r.Env.Dirty && r.Env.Build == "" {
		key += r.ID
	}
	return key
}
