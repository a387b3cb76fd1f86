package env

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/raftbench/raftbench/bench/result"
)

// tree reads /proc and /sys, below a root that is another folder in tests.
type tree struct{ root string }

var machine = tree{root: "/"}

// read is a file's content without the blanks around it, "" if there is none.
func (t tree) read(path ...string) string {
	data, err := os.ReadFile(filepath.Join(append([]string{t.root}, path...)...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// describe fills what is known of the place of the data, an existing folder, and
// of the limits on this process.
func (t tree) describe(e *result.Env, dir string) {
	e.CPUQuota, e.MemoryLimit = t.limits()
	e.FreeBytes = freeBytes(dir)
	m, ok := findMount(t.read("proc/self/mountinfo"), dir)
	if !ok {
		return
	}
	e.FileSystem, e.MountOptions, e.Device = m.fileSystem, m.options, m.source
	if device := m.block(); device != "" {
		t.describeDevice(e, device)
	}
}

// mount is a line of mountinfo.
type mount struct {
	device     string // major:minor
	point      string
	fileSystem string
	source     string
	options    string // of the mount and of the file system
}

// block is the major:minor of the block device, "" where there is none.
func (m mount) block() string {
	if strings.HasPrefix(m.device, "0:") { // btrfs and others number their mounts themselves
		return deviceNumber(m.source)
	}
	return m.device
}

// findMount is the mount that holds dir: the last of those with the longest
// matching path, because a later mount hides an earlier one. The format is that
// of proc_pid_mountinfo(5).
func findMount(mountinfo, dir string) (mount, bool) {
	var best mount
	found := false
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(line, " - ")
		a, b := strings.Fields(left), strings.Fields(right)
		if !ok || len(a) < 6 || len(b) < 3 {
			continue
		}
		m := mount{device: a[2], point: unescape(a[4]), fileSystem: b[0], source: unescape(b[1]), options: mergeOptions(a[5], b[2])}
		if within(dir, m.point) && (!found || len(m.point) >= len(best.point)) {
			best, found = m, true
		}
	}
	return best, found
}

func within(dir, point string) bool {
	return point == "/" || dir == point || strings.HasPrefix(dir, point+"/")
}

// mergeOptions joins two lists, without repeating what both hold.
func mergeOptions(a, b string) string {
	out := strings.Split(a, ",")
	seen := map[string]bool{}
	for _, o := range out {
		seen[o] = true
	}
	for o := range strings.SplitSeq(b, ",") {
		if !seen[o] && o != "" {
			out = append(out, o)
		}
	}
	return strings.Join(out, ",")
}

// unescape undoes the octal escapes of mountinfo: \040 is a blank.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// describeDevice reads what sysfs says of a block device, or of the disk that a
// partition is on.
func (t tree) describeDevice(e *result.Env, majorMinor string) {
	dir, err := filepath.EvalSymlinks(filepath.Join(t.root, "sys/dev/block", majorMinor))
	if err != nil {
		return
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	at := tree{root: dir}
	e.Scheduler = chosen(at.read("queue/scheduler"))
	e.WriteCache = at.read("queue/write_cache")
	if r := at.read("queue/rotational"); r != "" {
		rotational := r == "1"
		e.Rotational = &rotational
	}
	e.Model = strings.TrimSpace(at.read("device/vendor") + " " + at.read("device/model"))
	if e.Model == "" || strings.HasPrefix(e.Model, "0x") { // virtio: a bus number, no model
		e.Model = filepath.Base(dir)
		if driver, err := os.Readlink(filepath.Join(dir, "device/driver")); err == nil {
			e.Model += " (" + filepath.Base(driver) + ")"
		}
	}
}

// chosen is the bracketed word of "none [mq-deadline] kyber".
func chosen(list string) string {
	for word := range strings.FieldsSeq(list) {
		if inner, ok := strings.CutPrefix(word, "["); ok {
			return strings.TrimSuffix(inner, "]")
		}
	}
	return list
}

// unsafeMount: barriers are off, so that a flush of the device's cache is never
// sent.
func unsafeMount(options string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == "nobarrier" || o == "barrier=0" {
			return true
		}
	}
	return false
}

// limits are the tightest CPU quota in cores and memory limit in bytes of the
// cgroups that this process is in, 0 where there is none. Both versions of
// cgroups are read: they exist side by side.
func (t tree) limits() (cores float64, memory int64) {
	tighten := func(c float64, m int64) {
		if c > 0 && (cores == 0 || c < cores) {
			cores = c
		}
		if m > 0 && (memory == 0 || m < memory) {
			memory = m
		}
	}
	t.eachGroup(func(controllers, group string) {
		for _, base := range cpuBases(controllers) {
			tighten(quotaV2(t.read(base, group, "cpu.max")), number(t.read(base, group, "memory.max")))
			quota := number(t.read(base, group, "cpu.cfs_quota_us"))
			if period := number(t.read(base, group, "cpu.cfs_period_us")); quota > 0 && period > 0 {
				tighten(float64(quota)/float64(period), 0)
			}
		}
		if controllers == "memory" {
			if m := number(t.read("sys/fs/cgroup/memory", group, "memory.limit_in_bytes")); m < unlimitedV1 {
				tighten(0, m)
			}
		}
	})
	return cores, memory
}

// eachGroup calls f with every cgroup that this process is in, and those above it.
// Controllers is empty in version 2; in version 1 it names those of the hierarchy.
func (t tree) eachGroup(f func(controllers, group string)) {
	for line := range strings.Lines(t.read("proc/self/cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for _, group := range ancestors(parts[2]) {
			f(parts[1], group)
		}
	}
}

// cpuBases are where a hierarchy of cgroups that limits CPU time is mounted; none where
// it does not.
func cpuBases(controllers string) []string {
	switch controllers {
	case "":
		return []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"}
	case "cpu", "cpu,cpuacct", "cpuacct,cpu":
		return []string{"sys/fs/cgroup/cpu"}
	}
	return nil
}

// unlimitedV1: version 1 writes the largest page-aligned number for "no limit".
const unlimitedV1 = 1 << 60

// ancestors of "/a/b" are "/a/b", "/a" and "/". A container often sees a path
// that does not exist below its own root, whose limits it then finds at "/".
func ancestors(path string) []string {
	out := []string{path}
	for path != "/" && path != "." {
		path = filepath.Dir(path)
		out = append(out, path)
	}
	return out
}

// quotaV2 reads "max 100000" or "150000 100000".
func quotaV2(s string) float64 {
	quota, period, ok := strings.Cut(s, " ")
	q, p := number(quota), number(period)
	if !ok || q <= 0 || p <= 0 {
		return 0
	}
	return float64(q) / float64(p)
}

// number is 0 for what is none, such as "max".
func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
