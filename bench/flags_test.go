package bench

import (
	"slices"
	"testing"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// TestHostInMemory: a run of which any host keeps its data in memory says so.
func TestHostInMemory(t *testing.T) {
	on := func(fileSystem string) result.Env { return result.Env{FileSystem: fileSystem} }
	for _, c := range []struct {
		res  result.Result
		want []string
	}{
		{result.Result{Env: on("ext4")}, nil},
		{result.Result{Env: on("tmpfs")}, []string{"tmpfs"}},
		{result.Result{Env: on("ext4"), Hosts: []result.Host{{Env: on("ext4")}, {Env: on("xfs")}}}, nil},
		{result.Result{Env: on("ext4"), Hosts: []result.Host{{Env: on("ext4")}, {Env: on("tmpfs")}}}, []string{"tmpfs"}},
		{result.Result{Env: on("overlay"), Hosts: []result.Host{{Env: on("overlay")}, {Env: on("ramfs")}}}, []string{"tmpfs", "overlay"}},
	} {
		c.res.Runs = make([]result.Run, 1)
		applyEnv(&c.res)
		if got := c.res.Runs[0].Flags; !slices.Equal(got, c.want) {
			t.Errorf("%+v: flags %q, want %q", c.res.Hosts, got, c.want)
		}
	}
}

// TestHostDrifts: a disk that does not stay as fast as it was is told of on any host.
func TestHostDrifts(t *testing.T) {
	rows := func(before, after time.Duration) []result.Calibration {
		var out []result.Calibration
		for _, p50 := range []time.Duration{before, after} {
			out = append(out, result.Calibration{Kind: "overwrite+fdatasync", Bytes: 2300, Latency: result.Latency{Count: 1000, P50: p50}})
		}
		return out
	}
	steady, drifts := rows(200_000, 201_000), rows(200_000, 300_000)
	for name, c := range map[string]struct {
		res  result.Result
		want bool
	}{
		"one":               {result.Result{Calibration: drifts}, true},
		"none":              {result.Result{Calibration: steady, Hosts: []result.Host{{Calibration: steady}, {Calibration: steady}}}, false},
		"that of host 2":    {result.Result{Calibration: steady, Hosts: []result.Host{{Calibration: steady}, {Calibration: drifts}}}, true},
		"that of the first": {result.Result{Calibration: drifts, Hosts: []result.Host{{Calibration: drifts}, {Calibration: steady}}}, true},
	} {
		c.res.Runs = make([]result.Run, 1)
		applyFloor(&c.res)
		if got := slices.Contains(c.res.Runs[0].Flags, "floor_drift"); got != c.want {
			t.Errorf("%s: flags %q", name, c.res.Runs[0].Flags)
		}
	}
}

// TestFigureFlags: what the figures of a run show.
func TestFigureFlags(t *testing.T) {
	lag := func(p99 time.Duration) result.Run {
		return result.Run{Ops: 1, Lag: result.Latency{Count: 1, P99: p99}, Response: result.Latency{P99: 100}}
	}
	for _, c := range []struct {
		run   result.Run
		meant bool
		want  []string
	}{
		{result.Run{Ops: 1}, false, nil},
		{result.Run{}, true, []string{"nothing_committed"}},
		{result.Run{Ops: 1, Errors: 1}, false, []string{"errors"}},
		{result.Run{Ops: 1, Errors: 1}, true, nil},
		{lag(10), false, nil},
		{lag(11), true, []string{"generator_limited"}},
	} {
		if got := figureFlags(&c.run, c.meant); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.run, got, c.want)
		}
	}
}
