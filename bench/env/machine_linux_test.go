package env

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCPUScheduling sets each way on a thread of its own, which ends with it.
func TestCPUScheduling(t *testing.T) {
	for _, tc := range []struct {
		attr unix.SchedAttr
		want string
	}{
		{unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: 3}, "SCHED_OTHER, nice 3"},
		{unix.SchedAttr{Policy: unix.SCHED_BATCH, Nice: 5}, "SCHED_BATCH, nice 5"},
		{unix.SchedAttr{Policy: unix.SCHED_IDLE}, "SCHED_IDLE"},
		{unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1}, "SCHED_FIFO, priority 1"},
	} {
		t.Run(tc.want, func(t *testing.T) {
			runtime.LockOSThread() // and never unlocked
			tc.attr.Size = unix.SizeofSchedAttr
			if err := unix.SchedSetAttr(0, &tc.attr, 0); errors.Is(err, unix.EPERM) {
				t.Skip("needs CAP_SYS_NICE")
			} else if err != nil {
				t.Fatal(err)
			}
			if got := cpuScheduling(); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
	if got := Collect(t.TempDir()).CPUScheduling; got == "" {
		t.Error("absent from the machine's description")
	}
}
