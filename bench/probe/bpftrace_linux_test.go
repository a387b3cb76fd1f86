//go:build amd64 || arm64

package probe

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"
)

// bpftraceProgram counts the syncs of process %[1]d by descriptor and microsecond,
// except those of descriptor %[2]d, for each of which it prints a line. To print
// them all would take it some 12 µs in each, which the probe would measure, as its
// program runs after bpftrace's.
const bpftraceProgram = `
tracepoint:syscalls:sys_enter_fdatasync, tracepoint:syscalls:sys_enter_fsync
/pid == %[1]d/ { @begin[tid] = nsecs; @fd[tid] = args->fd; }
tracepoint:syscalls:sys_exit_fdatasync, tracepoint:syscalls:sys_exit_fsync
/@begin[tid]/ {
	if (@fd[tid] == %[2]d) { printf("ready\n"); }
	else { @us[@fd[tid], (nsecs - @begin[tid]) / 1000] = count(); }
	delete(@begin[tid]); delete(@fd[tid]);
}
END { clear(@begin); clear(@fd); }
`

// TestAgreesWithBpftrace watches the same calls with both. With
// RAFTBENCH_BPFTRACE=1 only: it needs bpftrace and mounts tracefs.
func TestAgreesWithBpftrace(t *testing.T) {
	if os.Getenv("RAFTBENCH_BPFTRACE") == "" {
		t.Skip("set RAFTBENCH_BPFTRACE=1 to compare with bpftrace")
	}
	mountTracefs(t)
	nodes := nodeDirs(t, 3)
	var files []*os.File
	for node := 1; node <= 3; node++ {
		files = append(files, create(t, nodes[node], "log"))
	}
	stop := bpftrace(t, int(create(t, t.TempDir(), "other").Fd()))
	p := start(t, nodes)
	const each = 1000
	for range each {
		for i, f := range files {
			_, err := f.WriteAt(make([]byte, 1024), 0)
			must(t, err)
			if i == 0 {
				must(t, syscall.Fsync(int(f.Fd())))
			} else {
				must(t, syscall.Fdatasync(int(f.Fd())))
			}
		}
	}
	r, err := p.Stop()
	must(t, err)

	counts := parseCounts(stop())
	for i, f := range files {
		theirs, ours := counts[int(f.Fd())], r.Nodes[i+1]
		var count int64
		for _, calls := range theirs {
			count += calls
		}
		if count != each || ours.TotalCount() != each {
			t.Fatalf("node %d: bpftrace counts %d, the probe %d, want %d", i+1, count, ours.TotalCount(), each)
		}
		a, b := median(theirs, each), time.Duration(ours.ValueAtQuantile(50))
		ratio := float64(b) / float64(a)
		t.Logf("node %d: %d calls, p50 %v by bpftrace and %v by the probe (%.3f)", i+1, each, a, b, ratio)
		if ratio < 0.9 || ratio > 1.1 {
			t.Errorf("node %d: the medians differ by more than 10 %%", i+1)
		}
	}
}

// parseCounts reads lines of "@us[descriptor, microseconds]: calls".
func parseCounts(lines []string) map[int]map[int]int64 {
	out := map[int]map[int]int64{}
	for _, line := range lines {
		var fd, micros int
		var calls int64
		if _, err := fmt.Sscanf(line, "@us[%d, %d]: %d", &fd, &micros, &calls); err == nil {
			if out[fd] == nil {
				out[fd] = map[int]int64{}
			}
			out[fd][micros] = calls
		}
	}
	return out
}

func median(counts map[int]int64, n int64) time.Duration {
	for _, micros := range slices.Sorted(maps.Keys(counts)) {
		if n -= 2 * counts[micros]; n <= 0 {
			return time.Duration(micros)*time.Microsecond + 500
		}
	}
	return 0
}

func mountTracefs(t *testing.T) {
	t.Helper()
	const dir = "/sys/kernel/tracing"
	if _, err := os.Stat(dir + "/events"); err == nil {
		return
	}
	if err := syscall.Mount("tracefs", dir, "tracefs", 0, ""); err != nil {
		t.Fatalf("mount tracefs, for bpftrace: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, 0)) })
}

// bpftrace starts it on this process, and returns when it sees the syncs of
// descriptor fd. The function that it returns ends it and gives all its output.
func bpftrace(t *testing.T, fd int) (stop func() []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "bpftrace", "-B", "line", "-e", fmt.Sprintf(bpftraceProgram, os.Getpid(), fd))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (apt-get install bpftrace)", err)
	}
	first, all := make(chan struct{}), make(chan []string, 1)
	go func() {
		var lines []string
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines = append(lines, scanner.Text())
			if scanner.Text() == "ready" && first != nil {
				close(first)
				first = nil
			}
		}
		all <- lines
	}()
	seen := first
	for ready := false; !ready; {
		must(t, syscall.Fdatasync(fd))
		select {
		case <-seen:
			ready = true
		case lines := <-all:
			t.Fatalf("bpftrace has ended: %q", lines)
		case <-ctx.Done():
			t.Fatal("bpftrace sees nothing")
		case <-time.After(50 * time.Millisecond):
		}
	}
	return func() []string {
		must(t, cmd.Process.Signal(os.Interrupt)) // it prints its maps
		lines := <-all
		must(t, cmd.Wait())
		return lines
	}
}
