package bench

import (
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/bench/stats"
)

// TestSettings: whatever a Spec asks for tells its runs apart ([stats.Config]), or is
// known to change no figure, or to be something else that runs are sorted by.
func TestSettings(t *testing.T) {
	known := []string{
		"Backends", "SeparateGroups", // stats.Name
		"Dir", "Keep", "Repeats", "Laps", "Seed", "NoCalibrate", "CalibrateFor", "NoSnapshots", // change no figure of a load
		"Networks", "Hosts", "RunOne", "Progress", "Watch", "Checkpoint", "WriteLog", "ReadTrace", // how it is done
		"Matrix", "Variant", "Resume", // of a suite
		"StateSizes", "NoWarmup", "GOMAXPROCS", "timersOnly", // as it came out: StateSize, Warmup, Run.GOMAXPROCS; of tests
	}
	text := map[string]string{
		"Transport": "grpc", "Loop": "async", "Raft": "node", "Placement": "process", "Snapshots": "plain",
		"Faults": "at 1s: kill leader", "CPUProfile": "cpu.pprof", "ExecTrace": "x.trace",
	}
	base := func() Spec {
		return Spec{Backends: []backends.Backend{mem.Backend}, Workload: Workload{Kind: WorkloadAge}, Probe: true,
			Networks: Networks{"mem": nil, "grpc": nil}}
	}
	config := func(s Spec) string {
		s.defaults()
		run := One{Spec: s, Backend: mem.Backend, Block: 1, Order: 1}.Header()
		return stats.Config(&run)
	}
	plain := config(base())
	fields := reflect.TypeFor[Spec]()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		changed := base()
		switch f := reflect.ValueOf(&changed).Elem().Field(i); {
		case slices.Contains(known, name):
			continue
		case name == "Workload":
			changed.Workload.Kind = WorkloadPropose
		case name == "Load":
			changed.Load = Closed(3)
		case name == "SlowDisk":
			changed.SlowDisk, _ = ParseSlowDisk("leader:+5ms")
		case f.Kind() == reflect.String:
			f.SetString(text[name])
		case f.Kind() == reflect.Int || f.Kind() == reflect.Int64:
			f.SetInt(4097)
		case f.Kind() == reflect.Uint64:
			f.SetUint(4097)
		case f.Kind() == reflect.Float64:
			f.SetFloat(0.25)
		case f.Kind() == reflect.Bool:
			f.SetBool(!f.Bool())
		default:
			t.Errorf("%s: of a kind that this test does not know", name)
		}
		if config(changed) == plain {
			t.Errorf("%s: runs that differ in it are taken for repeats of each other", name)
		}
	}
}

// TestSettingsOfDefaults: what is the default is not named, however it is asked for.
func TestSettingsOfDefaults(t *testing.T) {
	for name, s := range map[string]Spec{
		"nothing": {}, "spelled": {Duration: 5 * time.Second, Warmup: time.Second, Timeout: 10 * time.Second, SnapshotEntries: 100_000, CatchUpEntries: 5_000},
		"with faults": {Faults: "at 1s: kill leader", Timeout: time.Second},
		"age":         {Workload: Workload{Kind: WorkloadAge}, Cycles: ageCycles, BurstBytes: ageBurstBytes},
	} {
		s.Probe = true
		s.defaults()
		if got := s.settings(); got != nil {
			t.Errorf("%s: settings %v", name, got)
		}
	}
	s := Spec{Probe: true, Duration: 2 * time.Second, Faults: "at 1s: kill leader", Timeout: 10 * time.Second}
	s.defaults()
	if got, want := s.settings(), map[string]string{"duration": "2s", "timeout": "10s"}; !maps.Equal(got, want) {
		t.Errorf("settings %v, want %v", got, want)
	}
}
