package env

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func TestQuota(t *testing.T) {
	m := write(t, map[string]string{
		"proc/self/cgroup":                 "1:cpu,cpuacct:/job\n0::/kube/pod\n",
		"sys/fs/cgroup/kube/pod/cpu.stat":  "usage_usec 9\nnr_periods 200\nnr_throttled 20\nthrottled_usec 7\n",
		"sys/fs/cgroup/kube/cpu.stat":      "usage_usec 9\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n",
		"sys/fs/cgroup/cpu.stat":           "usage_usec 9\n",
		"sys/fs/cgroup/cpu/job/cpu.stat":   "nr_periods 100\nnr_throttled 90\nthrottled_time 1\n",
		"sys/fs/cgroup/cpu/other/cpu.stat": "nr_periods 100\nnr_throttled 100\n",
	})
	const pod, job = "sys/fs/cgroup/kube/pod", "sys/fs/cgroup/cpu/job"
	q := m.quota()
	if len(q) != 2 || q[pod] != (Periods{200, 20}) || q[job] != (Periods{100, 90}) {
		t.Fatalf("%v", q)
	}
	if share := q.Throttled(Quota{pod: {100, 15}, job: {90, 88}}); share == nil || *share != 0.2 {
		t.Errorf("5 of 100 periods, 2 of 10: %v", share)
	}
	if share := q.Throttled(q); share != nil {
		t.Errorf("no period has passed: %v", *share)
	}
	if share := (tree{t.TempDir()}).quota().Throttled(nil); share != nil {
		t.Errorf("a figure out of nothing: %v", *share)
	}
}

// TestQuotaOfKernel puts this process under a quota of its own and uses it up.
func TestQuotaOfKernel(t *testing.T) {
	enterQuota(t)
	before := CPUQuota()
	for deadline := time.Now().Add(time.Minute); ; {
		if share := CPUQuota().Throttled(before); share != nil && *share > 0 {
			if *share > 1 {
				t.Errorf("throttled in %v of the periods", *share)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a tenth of a core was not used up")
		}
	}
}

// enterQuota moves this process into a new cgroup with a tenth of a core, below the one
// it is in, until the test ends.
func enterQuota(t *testing.T) {
	pid := []byte(strconv.Itoa(os.Getpid()))
	inside := false
	machine.eachGroup(func(controllers, group string) {
		for _, base := range cpuBases(controllers) {
			home := filepath.Join("/", base, group)
			dir := filepath.Join(home, "raftbench-test-"+string(pid))
			if inside || os.Mkdir(dir, 0o755) != nil {
				continue
			}
			t.Cleanup(func() {
				if err := os.Remove(dir); err != nil {
					t.Error(err)
				}
			})
			limited := os.WriteFile(filepath.Join(dir, "cpu.cfs_quota_us"), []byte("10000"), 0) == nil ||
				os.WriteFile(filepath.Join(dir, "cpu.max"), []byte("10000 100000"), 0) == nil
			if !limited || os.WriteFile(filepath.Join(dir, "cgroup.procs"), pid, 0) != nil {
				continue
			}
			inside = true
			t.Cleanup(func() {
				if err := os.WriteFile(filepath.Join(home, "cgroup.procs"), pid, 0); err != nil {
					t.Error(err)
				}
			})
		}
	})
	if !inside {
		t.Skip("no CPU quota can be set here: that takes root, and a cgroup whose controller cpu may limit those below it")
	}
}
