package bench

import (
	"errors"
	"slices"
	"strings"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/stats"
)

// CheckDemands refuses demands that the runs of a filled suite are bound to miss, whatever
// they measure: those on a backend that is not in it, and those on figures that its runs
// do not have. What only a run can tell is left to it, such as whether the kernel shows
// fsync.
func (s *Spec) CheckDemands(demands []stats.Demand) error {
	plan := s.plan(1)
	var errs []error
	for _, d := range demands {
		errs = append(errs, checkDemand(d, plan))
	}
	return errors.Join(errs...)
}

func checkDemand(d stats.Demand, plan []One) error {
	var all, demanded []string
	why := map[string]string{} // what keeps every run of a backend from having the figure
	for _, one := range plan {
		label := one.Backend.Label()
		if !slices.Contains(all, label) {
			all = append(all, label)
		}
		if d.Backend != "" && d.Backend != label && d.Backend != one.Backend.Name {
			continue
		}
		lack := one.lacks(d.Metric.Name)
		if !slices.Contains(demanded, label) {
			demanded = append(demanded, label)
			why[label] = lack
		} else if lack == "" {
			why[label] = ""
		}
	}
	if len(demanded) == 0 {
		slices.Sort(all)
		return usage("threshold %q: %s is not in this suite, which runs %s", d.Expr, d.Backend, strings.Join(all, ", "))
	}
	slices.Sort(demanded)
	for _, label := range demanded {
		if why[label] != "" {
			return usage("threshold %q: no run of %s can have %s: %s", d.Expr, label, d.Metric.Name, why[label])
		}
	}
	return nil
}

// lacks says why a run will not have a figure; nothing where it may.
func (o One) lacks(metric string) string {
	kind := o.Workload.Kind
	family, _, _ := strings.Cut(metric, ".")
	switch family {
	case "throughput", "response", "service", "lag", "reads", "save", "save_bytes", "save_x_floor", "entries_per_save", "fsyncs_per_op", "stages",
		"write_amp", "cpu_per_op", "allocs_per_op", "gc_pause", "network":
		if kind == WorkloadRestart || kind == WorkloadSnapshot {
			return "the workload " + string(kind) + " measures no load"
		}
	}
	switch family {
	case "lag":
		if o.Load.Kind == LoadClosed {
			return "clients that wait for their answer are never late; use open:R or poisson:R"
		}
	case "reads":
		if o.ReadRatio == 0 {
			return "there are no reads without --read-ratio"
		}
	case "fsync", "fsyncs_per_op", "restart", "save_x_floor", "write_amp", "space_amp":
		if o.Backend.Durability == backends.None {
			return "it keeps nothing, by design"
		}
		if metric == "restart.ready" && kind != WorkloadRestart {
			return "the workload " + string(kind) + " opens the stores only; use restart"
		}
	case "snapshot":
		switch {
		case kind != WorkloadPropose && kind != WorkloadSnapshot:
			return "the workload " + string(kind) + " installs no snapshot"
		case o.Nodes < 3:
			return "a snapshot is installed where there are 3 nodes or more"
		case o.NoSnapshots || o.Faults != "" || o.Load.Kind == LoadCurve || o.Load.Kind == LoadSearch:
			return "no snapshot is installed after a load with faults, a curve or a search"
		}
	case "faults":
		if o.Faults == "" {
			return "there are none without --faults"
		}
	case "network":
		if o.Nodes < 2 {
			return "one node has no network"
		}
	}
	return ""
}
