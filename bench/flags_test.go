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
