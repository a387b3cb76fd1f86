package env

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ResetPeakRSS makes the peak of [RSS] start from now.
func ResetPeakRSS() error {
	// 5 resets the peak: proc_pid_clear_refs(5).
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return fmt.Errorf("reset the peak of resident memory: %w", err)
	}
	return nil
}

// policies are those of sched_setattr(2) and sched_ext, by number.
var policies = map[uint32]string{
	unix.SCHED_NORMAL: "SCHED_OTHER", unix.SCHED_BATCH: "SCHED_BATCH", unix.SCHED_IDLE: "SCHED_IDLE",
	unix.SCHED_FIFO: "SCHED_FIFO", unix.SCHED_RR: "SCHED_RR", unix.SCHED_DEADLINE: "SCHED_DEADLINE", unix.SCHED_EXT: "SCHED_EXT",
}

// cpuScheduling is how the kernel schedules this thread, and so those of the processes
// that it starts: the policy, and the nice value or the priority where it is not 0.
func cpuScheduling() string {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return ""
	}
	how := policies[attr.Policy]
	switch {
	case how == "":
		how = fmt.Sprintf("policy %d", attr.Policy)
	case attr.Priority != 0:
		how += fmt.Sprintf(", priority %d", attr.Priority)
	}
	if attr.Nice != 0 {
		how += fmt.Sprintf(", nice %d", attr.Nice)
	}
	return how
}

// freeBytes is what an unprivileged process may still write to dir's file system.
func freeBytes(dir string) int64 {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}

// deviceNumber is the major:minor of a device file, "" if it is none.
func deviceNumber(path string) string {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFBLK {
		return ""
	}
	// The encoding of dev_t, as in the C library's gnu_dev_major and _minor.
	major := (st.Rdev>>8)&0xfff | (st.Rdev>>32)&^uint64(0xfff)
	minor := st.Rdev&0xff | (st.Rdev>>12)&^uint64(0xff)
	return fmt.Sprintf("%d:%d", major, uint32(minor))
}
