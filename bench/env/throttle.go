package env

import (
	"path"
	"strings"
)

// Quota counts, for every CPU quota that this process is under, the periods in which
// something ran, and those in which the quota was used up, so that everything under it
// stood still until the period, often 100 ms, was over. The keys are the directories of
// the cgroups; it is empty where there is no quota, or the system has none.
type Quota map[string]Periods

// Periods are counted since the cgroup was made.
type Periods struct{ All, Throttled int64 }

// CPUQuota reads the counters of the quotas that this process is under.
func CPUQuota() Quota { return machine.quota() }

// Throttled is the share of the periods since then in which the quota was used up: that
// of the cgroup in which it was the largest. Nil where no period has passed under one.
func (q Quota) Throttled(since Quota) *float64 {
	var worst *float64
	for group, now := range q {
		then := since[group]
		if now.All <= then.All {
			continue
		}
		share := float64(now.Throttled-then.Throttled) / float64(now.All-then.All)
		if worst == nil || share > *worst {
			worst = &share
		}
	}
	return worst
}

func (t tree) quota() Quota {
	q := Quota{}
	t.eachGroup(func(controllers, group string) {
		for _, base := range cpuBases(controllers) {
			dir := path.Join(base, group)
			var p Periods
			for line := range strings.Lines(t.read(dir, "cpu.stat")) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
				switch name {
				case "nr_periods":
					p.All = number(value)
				case "nr_throttled":
					p.Throttled = number(value)
				}
			}
			if p.All > 0 {
				q[dir] = p
			}
		}
	})
	return q
}
