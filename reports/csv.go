package reports

import (
	"encoding/csv"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// csvColumn is one column of runs.csv.
type csvColumn struct {
	name string
	get  func(*result.Run) string
}

// CSV writes one line per run, with a head of names as in result.json.
// Durations are integer nanoseconds; an empty cell was not measured. Text that a
// spreadsheet would take for a formula is preceded by an apostrophe.
func CSV(w io.Writer, r *result.Result) error {
	cw := csv.NewWriter(w)
	columns := csvColumns()
	line := make([]string, len(columns))
	for i, c := range columns {
		line[i] = c.name
	}
	if err := cw.Write(line); err != nil {
		return err
	}
	for i := range r.Runs {
		for j, c := range columns {
			line[j] = c.get(&r.Runs[i])
		}
		if err := cw.Write(line); err != nil {
			return err
		}
	}
	cw.Flush()
	return cw.Error()
}

func csvColumns() []csvColumn {
	text := func(name string, get func(*result.Run) string) csvColumn {
		return csvColumn{name, func(r *result.Run) string { return csvText(get(r)) }}
	}
	integer := func(name string, get func(*result.Run) int64) csvColumn {
		return csvColumn{name, func(r *result.Run) string { return strconv.FormatInt(get(r), 10) }}
	}
	// some is an integer of which 0 says that there is none.
	some := func(name string, get func(*result.Run) int64) csvColumn {
		return csvColumn{name, func(r *result.Run) string { return number(float64(get(r))) }}
	}
	out := []csvColumn{
		text("id", func(r *result.Run) string { return r.ID }),
		text("env", func(r *result.Run) string { return r.Env }),
		integer("block", func(r *result.Run) int64 { return int64(r.Block) }),
		some("lap", func(r *result.Run) int64 { return int64(r.Lap) }),
		integer("order", func(r *result.Run) int64 { return int64(r.Order) }),
		text("started", func(r *result.Run) string {
			if r.Started.IsZero() {
				return ""
			}
			return r.Started.UTC().Format(time.RFC3339)
		}),
		text("backend", func(r *result.Run) string { return r.Backend }),
		text("params", func(r *result.Run) string {
			return strings.TrimSuffix(strings.TrimPrefix(labelOf("", r.Params), "["), "]")
		}),
		text("durability", func(r *result.Run) string { return r.Durability }),
		text("transport", func(r *result.Run) string { return r.Transport }),
		text("loop", func(r *result.Run) string { return r.Loop }),
		integer("nodes", func(r *result.Run) int64 { return int64(r.Nodes) }),
		some("gomaxprocs", func(r *result.Run) int64 { return int64(r.GOMAXPROCS) }),
		text("workload", func(r *result.Run) string { return r.Workload }),
		text("load", func(r *result.Run) string { return loadText(r.Load) }),
		csvColumn{"read_ratio", func(r *result.Run) string { return number(r.ReadRatio) }},
		some("value_bytes", func(r *result.Run) int64 { return int64(r.ValueBytes) }),
		some("state_bytes", func(r *result.Run) int64 { return r.StateBytes }),
		text("slow_disk", func(r *result.Run) string { return r.SlowDisk }),
		text("settings", func(r *result.Run) string {
			var parts []string
			for _, name := range slices.Sorted(maps.Keys(r.Settings)) {
				parts = append(parts, name+"="+r.Settings[name])
			}
			return strings.Join(parts, " ")
		}),
		csvColumn{"ops", func(r *result.Run) string {
			if r.Elapsed == 0 { // no load was measured
				return ""
			}
			return strconv.FormatInt(r.Ops, 10)
		}},
		some("elapsed_ns", func(r *result.Run) int64 { return int64(r.Elapsed) }),
	}
	for _, m := range metrics {
		out = append(out, csvColumn{m.JSON, func(r *result.Run) string {
			v, ok := m.get(r)
			if !ok {
				return ""
			}
			return strconv.FormatFloat(v, 'f', -1, 64)
		}})
	}
	return append(out,
		text("verified", func(r *result.Run) string {
			if r.Verified == nil {
				return ""
			}
			return strconv.FormatBool(r.Verified.OK)
		}),
		csvColumn{"lost", verifiedCount(func(v *result.Verified) int64 { return v.Lost })},
		csvColumn{"wrong", verifiedCount(func(v *result.Verified) int64 { return v.Wrong })},
		text("flags", func(r *result.Run) string { return strings.Join(r.Flags, " ") }),
		text("error", func(r *result.Run) string { return r.Error }),
	)
}

func verifiedCount(get func(*result.Verified) int64) func(*result.Run) string {
	return func(r *result.Run) string {
		if r.Verified == nil {
			return ""
		}
		return strconv.FormatInt(get(r.Verified), 10)
	}
}

// csvText makes text safe for a spreadsheet, which runs what begins like a
// formula.
func csvText(s string) string {
	s = clean(s)
	if s != "" && strings.ContainsRune("=+-@", rune(s[0])) {
		return "'" + s
	}
	return s
}
