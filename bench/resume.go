package bench

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/result"
)

// suiteFlags are set when a suite ends, from all of its runs. They are set anew
// when it is resumed.
var suiteFlags = []string{"harness_limited", "fake_disk", "floor_drift", "tmpfs", "overlay", "steal"}

// resume takes over what an interrupted process made of the suite. It refuses
// runs of another suite, machine or build: they would be compared with the rest.
func (s *Spec) resume(res *result.Result) error {
	digest, err := s.digest()
	if err != nil {
		return err
	}
	res.Suite = digest
	old := s.Resume
	if old == nil {
		return nil
	}
	if old.Suite != digest {
		return usage("the result to resume is of another suite; give the settings that it was made with, or another --out")
	}
	if changed := changes(old, res); len(changed) > 0 {
		return usage("the result to resume is of another machine or build (%s); measure anew with another --out", strings.Join(changed, ", "))
	}
	res.ID, res.Started = old.ID, old.Started
	res.Calibration = slices.Clone(old.Calibration)
	res.Notes = maps.Clone(old.Notes)
	for i := range res.Hosts {
		if i < len(old.Hosts) {
			res.Hosts[i].Calibration = slices.Clone(old.Hosts[i].Calibration)
		}
	}
	for _, r := range old.Runs {
		if r.Error != "" || r.ID == "" {
			continue // it has no figures, and is made again
		}
		r.Flags = slices.DeleteFunc(slices.Clone(r.Flags), func(f string) bool { return slices.Contains(suiteFlags, f) })
		r.SaveFloor = 0
		res.Runs = append(res.Runs, r)
	}
	return nil
}

// changes names what differs between the conditions of two results whose runs could not
// be compared.
func changes(old, now *result.Result) []string {
	before, after := old.Conditions(), now.Conditions()
	if len(before) != len(after) {
		return []string{fmt.Sprintf("hosts: %d, now %d", len(old.Hosts), len(now.Hosts))}
	}
	var out []string
	for i, c := range before {
		if c != after[i] {
			out = append(out, fmt.Sprintf("%s: %v, now %v", c.Name, c.Value, after[i].Value))
		}
	}
	return out
}

// fillMatrix completes every configuration of the matrix with what frames the
// suite.
func (s *Spec) fillMatrix() error {
	var errs []error
	seen := map[string]bool{}
	for i := range s.Matrix {
		c := &s.Matrix[i]
		if len(c.Matrix) > 0 {
			return usage("configuration %q of the matrix holds a matrix", c.Variant)
		}
		if seen[c.Variant] {
			return usage("configuration %q of the matrix is given twice", c.Variant)
		}
		seen[c.Variant] = true
		c.Seed, c.Repeats, c.Laps = s.Seed, s.Repeats, s.Laps
		c.Networks, c.RunOne, c.WriteLog, c.ReadTrace = s.Networks, s.RunOne, s.WriteLog, s.ReadTrace
		if err := c.Fill(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Variant, err))
		}
	}
	if s.Repeats < 1 || s.Repeats > maxRepeats {
		errs = append(errs, usage("repeats %d: want 1 to %d", s.Repeats, maxRepeats))
	}
	return errors.Join(errs...)
}

// mostNodes is the size of the largest cluster on this machine, in stores, which the
// disk must have room for.
func (s *Spec) mostNodes() int {
	n := 0
	for _, c := range s.configs() {
		if c.Placement == PlacementHosts {
			continue
		}
		n = max(n, c.Nodes)
		for _, b := range c.Backends {
			if c.Groups > 1 && b.OpenShared == nil && b.Durability != backends.None {
				n = max(n, c.Nodes*c.Groups)
			}
		}
	}
	return n
}
