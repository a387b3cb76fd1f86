package bench

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/backends/raw"
	"github.com/raftbench/raftbench/node"
)

func restartSpec(t *testing.T, bs ...backends.Backend) Spec {
	t.Helper()
	spec := quick(t, bs...)
	spec.Workload, spec.StateSizes, spec.NoCalibrate = Workload{Kind: WorkloadRestart}, []int64{64 << 10, 1 << 20}, true
	return spec
}

func TestRestart(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"ready":    func(*Spec) {},
		"async":    func(s *Spec) { s.Loop = node.LoopAsync },
		"one node": func(s *Spec) { s.Nodes = 1 },
		"range":    func(s *Spec) { s.ValueSize, s.ValueSizeMax = 100, 1948 },
	} {
		t.Run(name, func(t *testing.T) {
			spec := restartSpec(t, raw.Backend, mem.Backend)
			change(&spec)
			res := mustRun(t, spec)
			if len(res.Runs) != 2 || res.Planned != 2 {
				t.Fatalf("%d runs, %d planned: want two sizes of raw, and none of mem, which keeps nothing", len(res.Runs), res.Planned)
			}
			for _, r := range res.Runs {
				n := max(spec.Nodes, 1)
				if spec.Nodes == 0 {
					n = 3
				}
				want := r.StateBytes/1024 + int64(n)
				re := r.Restart
				if re == nil || re.Open <= 0 || re.Ready < re.Open || re.Killed || re.Entries != want || re.Bytes < r.StateBytes*9/10 || re.Bytes > r.StateBytes*11/10 {
					t.Errorf("%s: %+v, want %d entries", r.ID, re, want)
				}
				if v := r.Verified; v == nil || !v.OK || v.Acked != want {
					t.Errorf("%s: verified %+v", r.ID, v)
				}
				if r.Chosen["io"] == "" || r.Chosen["sync"] == "" {
					t.Errorf("%s: chose %q", r.ID, r.Chosen)
				}
			}
		})
	}
}

// TestRestartKilled runs a writer that is killed with the storage open.
func TestRestartKilled(t *testing.T) {
	if dir := os.Getenv("RAFTBENCH_TEST_WRITE_LOG"); dir != "" {
		spec := restartSpec(t, raw.Backend)
		if err := spec.Fill(); err != nil {
			t.Fatal(err)
		}
		if _, err := WriteLog(context.Background(), One{Spec: spec, Backend: raw.Backend, StateSize: 1 << 20, RunDir: dir}); err != nil {
			t.Fatal(err)
		}
		p, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = p.Kill()
		}
		t.Fatal(err)
	}
	spec := restartSpec(t, raw.Backend)
	spec.StateSizes = []int64{1 << 20}
	written := map[bool]int{}
	spec.WriteLog = func(ctx context.Context, one One) error {
		written[one.Killed]++
		if !one.Killed {
			storage, err := WriteLog(ctx, one)
			if err != nil {
				return err
			}
			return storage.Close()
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestRestartKilled$")
		cmd.Env = append(os.Environ(), "RAFTBENCH_TEST_WRITE_LOG="+one.RunDir)
		if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != -1 {
			t.Errorf("the writer was not killed: %v\n%s", err, out)
		}
		return nil
	}
	res := mustRun(t, spec)
	killed := 0
	for _, r := range res.Runs {
		if r.Restart == nil || r.Verified == nil || !r.Verified.OK || r.Restart.Killed != strings.HasSuffix(r.ID, "-killed") {
			t.Errorf("%s: %+v, verified %+v", r.ID, r.Restart, r.Verified)
		}
		if r.Restart != nil && r.Restart.Killed {
			killed++
		}
	}
	if len(res.Runs) != 2 || killed != 1 || written[true] != 1 || written[false] != 1 {
		t.Errorf("%d runs, %d of them killed, written %v", len(res.Runs), killed, written)
	}
}

// TestRestartLost: a log that comes back shorter, or changed, is noticed.
func TestRestartLost(t *testing.T) {
	for name, tc := range map[string]struct {
		change      func(*backends.State)
		lost, wrong int64
	}{
		"shorter": {func(st *backends.State) { st.Entries = st.Entries[:60] }, 7, 0},
		"changed": {func(st *backends.State) {
			e := proto.Clone(st.Entries[33]).(*raftpb.Entry)
			e.Data[len(e.Data)-1] ^= 1
			st.Entries[33] = e
		}, 0, 1},
	} {
		b := forgetful("raw", tc.change)
		spec := restartSpec(t, b)
		spec.StateSizes = []int64{64 << 10}
		run := mustRun(t, spec).Runs[0]
		if v := run.Verified; v == nil || v.OK || v.Lost != tc.lost || v.Wrong != tc.wrong || v.Detail == "" {
			t.Errorf("%s: verified %+v", name, v)
		}
	}
}

func TestWriteLogCanceled(t *testing.T) {
	spec := restartSpec(t, raw.Backend)
	if err := spec.Fill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	one := One{Spec: spec, Backend: raw.Backend, StateSize: 1 << 20, RunDir: t.TempDir()}
	if _, err := WriteLog(ctx, one); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	storage, _, err := raw.Backend.Open(backends.Options{Dir: filepath.Join(one.RunDir, "node-1")})
	if err != nil {
		t.Fatalf("the storage was left open: %v", err)
	}
	if err := storage.Close(); err != nil {
		t.Error(err)
	}
}
