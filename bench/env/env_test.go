package env

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/raftbench/raftbench/bench/result"
)

// write makes a tree of files, and of links where the content begins with "->".
func write(t *testing.T, files map[string]string) tree {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return tree{root}
}

func TestCollect(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet")
	e := Collect(dir)
	t.Logf("%+v", e)
	if e.OS != runtime.GOOS || e.Cores < 1 || e.Go == "" || e.GOGC == "" || e.Version == "" || e.Before == nil || e.Dir != dir {
		t.Errorf("%+v", e)
	}
	if runtime.GOOS != "linux" {
		return
	}
	if e.Kernel == "" || e.CPU == "" || e.MemoryBytes == 0 || e.FileSystem == "" || e.MountOptions == "" || e.FreeBytes == 0 {
		t.Errorf("%+v", e)
	}
	if e.Before.AvailableMB == nil || e.Before.StealShare == nil {
		t.Errorf("%+v", *e.Before)
	}
	if _, err := json.Marshal(e); err != nil {
		t.Error(err)
	}
}

func TestVirtualization(t *testing.T) {
	for _, c := range []struct {
		system string
		guest  bool
		want   string
	}{
		{"", false, ""}, {"", true, "virtual machine"}, {"docker", false, "docker"},
		{"docker", true, "docker in a virtual machine"}, {"kvm", true, "kvm"},
	} {
		if got := virtualization(c.system, c.guest); got != c.want {
			t.Errorf("%q, guest %v: %q", c.system, c.guest, got)
		}
	}
}

const mountinfo = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard,barrier=0
40 27 254:1 / /data rw,noatime shared:7 master:2 - xfs /dev/vdb1 rw,attr2
41 40 0:40 /vol /data/a\040b rw - btrfs /dev/vdc rw,compress=zstd:1
42 27 0:41 / /database rw - tmpfs tmpfs rw
43 40 0:42 / /data/old rw - ext4 /dev/vdd rw
44 40 0:43 / /data/old rw - overlay overlay rw,lowerdir=/x
broken line
`

func TestFindMount(t *testing.T) {
	for dir, want := range map[string]mount{
		"/":               {"254:0", "/", "ext4", "/dev/vda", "rw,relatime,discard,barrier=0"},
		"/home/x":         {"254:0", "/", "ext4", "/dev/vda", "rw,relatime,discard,barrier=0"},
		"/data":           {"254:1", "/data", "xfs", "/dev/vdb1", "rw,noatime,attr2"},
		"/data/a":         {"254:1", "/data", "xfs", "/dev/vdb1", "rw,noatime,attr2"},
		"/data/a b/c":     {"0:40", "/data/a b", "btrfs", "/dev/vdc", "rw,compress=zstd:1"},
		"/database":       {"0:41", "/database", "tmpfs", "tmpfs", "rw"},
		"/databases":      {"254:0", "/", "ext4", "/dev/vda", "rw,relatime,discard,barrier=0"},
		"/data/old/files": {"0:43", "/data/old", "overlay", "overlay", "rw,lowerdir=/x"},
	} {
		if got, ok := findMount(mountinfo, dir); !ok || got != want {
			t.Errorf("%s: %+v", dir, got)
		}
	}
	if _, ok := findMount("", "/"); ok {
		t.Error("a mount out of nothing")
	}
}

// TestDescribe reads a partition of an NVMe disk in a container with limits.
func TestDescribe(t *testing.T) {
	m := write(t, map[string]string{
		"proc/self/mountinfo":                          "40 27 259:2 / / rw,noatime - xfs /dev/nvme0n1p2 rw,inode64\n",
		"proc/self/cgroup":                             "0::/kube/pod\n",
		"sys/fs/cgroup/kube/cpu.max":                   "400000 100000\n",
		"sys/fs/cgroup/kube/pod/cpu.max":               "150000 100000\n",
		"sys/fs/cgroup/kube/memory.max":                "1073741824\n",
		"sys/fs/cgroup/kube/pod/memory.max":            "max\n",
		"sys/dev/block/259:2":                          "->../../devices/pci0/nvme0n1/nvme0n1p2",
		"sys/devices/pci0/nvme0n1/nvme0n1p2/partition": "2\n",
		"sys/devices/pci0/nvme0n1/queue/scheduler":     "[none] mq-deadline kyber\n",
		"sys/devices/pci0/nvme0n1/queue/write_cache":   "write through\n",
		"sys/devices/pci0/nvme0n1/queue/rotational":    "0\n",
		"sys/devices/pci0/nvme0n1/device/model":        "SAMSUNG MZVL2512HCJQ-00B00           \n",
	})
	var e result.Env
	m.describe(&e, "/var/lib")
	no := false
	want := result.Env{
		CPUQuota: 1.5, MemoryLimit: 1 << 30, FileSystem: "xfs", MountOptions: "rw,noatime,inode64",
		Device: "/dev/nvme0n1p2", Model: "SAMSUNG MZVL2512HCJQ-00B00", Rotational: &no,
		Scheduler: "none", WriteCache: "write through", FreeBytes: e.FreeBytes,
	}
	if !reflect.DeepEqual(e, want) {
		t.Errorf("%+v\nwant %+v", e, want)
	}
}

// TestVirtioHasNoModel: the bus number is not one.
func TestVirtioHasNoModel(t *testing.T) {
	m := write(t, map[string]string{
		"sys/dev/block/254:0":                            "->../../devices/virtio1/block/vda",
		"sys/devices/virtio1/block/vda/device":           "->../..",
		"sys/devices/virtio1/vendor":                     "0x1af4\n",
		"sys/devices/virtio1/driver":                     "->../../bus/virtio_blk",
		"sys/devices/virtio1/block/vda/queue/rotational": "1\n",
	})
	var e result.Env
	m.describeDevice(&e, "254:0")
	if e.Model != "vda (virtio_blk)" || e.Rotational == nil || !*e.Rotational {
		t.Errorf("%+v", e)
	}
}

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		cores  float64
		memory int64
	}{
		"none": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000"}, 0, 0},
		"version 1": {map[string]string{
			"proc/self/cgroup": "4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n",
			"sys/fs/cgroup/memory/job/memory.limit_in_bytes": "536870912",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     "9223372036854771712",
			"sys/fs/cgroup/cpu/job/cpu.cfs_quota_us":         "50000",
			"sys/fs/cgroup/cpu/job/cpu.cfs_period_us":        "100000",
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us":             "-1",
			"sys/fs/cgroup/cpu/cpu.cfs_period_us":            "100000",
		}, 0.5, 512 << 20},
		"path of another namespace": {map[string]string{
			"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/cpu.max": "200000 100000", "sys/fs/cgroup/memory.max": "1000",
		}, 2, 1000},
	} {
		if cores, memory := write(t, c.files).limits(); cores != c.cores || memory != c.memory {
			t.Errorf("%s: %v cores, %d bytes", name, cores, memory)
		}
	}
}

func TestPressure(t *testing.T) {
	m := write(t, map[string]string{
		"proc/pressure/cpu": "some avg10=46.37 avg60=48.23 avg300=38.37 total=338125692\nfull avg10=1.00 avg60=0 avg300=0 total=0\n",
		"proc/pressure/io":  "some avg10=4.60 avg60=6.42 avg300=8.95 total=79986806\n",
		"proc/stat":         "cpu  100 20 30 800 5 1 4 40 10 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n",
	})
	if got := m.ticks(); got != (Ticks{total: 1000, steal: 40}) {
		t.Errorf("ticks %+v", got)
	}
	p := m.pressure(Ticks{total: 600, steal: 30})
	if p.CPUSome10 == nil || *p.CPUSome10 != 46.37 || p.IOSome10 == nil || *p.IOSome10 != 4.6 || p.MemSome10 != nil {
		t.Errorf("%+v", p)
	}
	if p.StealShare == nil || *p.StealShare != 0.025 {
		t.Errorf("10 of 400 ticks: %v", p.StealShare)
	}
	if p := (tree{t.TempDir()}).pressure(Ticks{}); p.StealShare != nil || p.CPUSome10 != nil {
		t.Errorf("figures out of nothing: %+v", p)
	}
}

func TestWarnings(t *testing.T) {
	good := result.Env{
		Cores: 4, CPUQuota: 4, MemoryBytes: 8 << 30, FileSystem: "ext4", MountOptions: "rw,noatime",
		FreeBytes: 100 << 30, Before: &result.Pressure{Load1: 0.5, IOSome10: new(1.0), StealShare: new(0.001)},
	}
	if got := Warnings(good); len(got) > 0 {
		t.Errorf("a good machine: %q", got)
	}
	for want, change := range map[string]func(*result.Env){
		"in memory":             func(e *result.Env) { e.FileSystem = "tmpfs" },
		"container's layers":    func(e *result.Env) { e.FileSystem = "overlay" },
		"a network":             func(e *result.Env) { e.FileSystem = "nfs4" },
		"without barriers":      func(e *result.Env) { e.MountOptions = "rw,nobarrier" },
		"1.5 of 4 cores":        func(e *result.Env) { e.CPUQuota = 1.5 },
		"512 MiB of memory":     func(e *result.Env) { e.MemoryLimit = 512 << 20 },
		"only 1.0 GiB are free": func(e *result.Env) { e.FreeBytes = 1 << 30 },
		"its commit":            func(e *result.Env) { e.Dirty = true },
		"load 3.0 on 4 cores":   func(e *result.Env) { e.Before = &result.Pressure{Load1: 3} },
		"for a disk in 12 %":    func(e *result.Env) { e.Before = &result.Pressure{IOSome10: new(12.0)} },
		"given 10 %":            func(e *result.Env) { e.Before = &result.Pressure{StealShare: new(0.1)} },
	} {
		e := good
		change(&e)
		if got := Warnings(e); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%q, want one with %q", got, want)
		}
	}
}

func TestBuild(t *testing.T) {
	var e result.Env
	describeBuild(&e, &debug.BuildInfo{
		Main: debug.Module{Path: "example.org/x", Version: "v1.2.3"},
		Deps: []*debug.Module{
			{Path: "a", Version: "v1"},
			{Path: "b", Version: "v2", Replace: &debug.Module{Path: "../b"}},
		},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}},
	})
	want := result.Env{Version: "v1.2.3", Commit: "abc", Dirty: true, Modules: map[string]string{"a": "v1", "b": "v2 => ../b "}}
	if !reflect.DeepEqual(e, want) {
		t.Errorf("%+v", e)
	}
}

// TestFingerprint: the file of this test has one, the same each time.
func TestFingerprint(t *testing.T) {
	if a, b := fingerprint(), fingerprint(); len(a) != 16 || a != b {
		t.Errorf("%q and %q", a, b)
	}
}

func TestCheckout(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		args = append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.org"}, args...)
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	mod := filepath.Join(dir, "go.mod")
	if err := os.WriteFile(mod, []byte("module example.org/x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	git("init", "-q")
	git("add", "-f", "go.mod")
	git("commit", "-q", "-m", "x")
	if commit, dirty := checkout(dir, "example.org/x"); len(commit) != 40 || dirty {
		t.Errorf("clean: %q, %v", commit, dirty)
	}
	if commit, _ := checkout(dir, "example.org/y"); commit != "" {
		t.Errorf("the checkout of another module: %q", commit)
	}
	if err := os.WriteFile(mod, []byte("module example.org/x\n\ngo 1.26\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, dirty := checkout(dir, "example.org/x"); !dirty {
		t.Error("a changed file does not make it dirty")
	}
}
