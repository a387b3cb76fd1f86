package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lab is the network of scripts/netns, under a prefix of this test's own.
type lab struct {
	t      *testing.T
	prefix string
	net    string // the first three numbers of its addresses
}

// newLab makes the network and removes it at the end. It must be called before
// anything that starts processes in it, so that these are ended first.
func newLab(t *testing.T) *lab {
	t.Helper()
	pid := os.Getpid()
	l := &lab{t: t, prefix: fmt.Sprintf("raftbench-t%d", pid), net: fmt.Sprintf("10.174.%d", pid%250+1)}
	if os.Geteuid() != 0 {
		unavailable(t, "network namespaces need root")
	}
	t.Cleanup(func() {
		if out, err := l.script("down"); err != nil {
			t.Errorf("scripts/netns down: %v: %s", err, out)
		}
	})
	if out, err := l.script("up"); err != nil {
		unavailable(t, fmt.Sprintf("scripts/netns up: %v: %s", err, out))
	}
	return l
}

// script calls scripts/netns.
func (l *lab) script(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(repoRoot, "scripts", "netns"), args...)
	cmd.Env = append(os.Environ(), "RAFTBENCH_NETNS="+l.prefix, "RAFTBENCH_NET="+l.net)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (l *lab) must(args ...string) {
	l.t.Helper()
	if out, err := l.script(args...); err != nil {
		l.t.Fatalf("scripts/netns %v: %v: %s", args, err, out)
	}
}

// address of a host, 1 to 3.
func (l *lab) address(host int) string { return fmt.Sprintf("%s.%d", l.net, host) }

// namespaces that exist under the prefix.
func (l *lab) namespaces() []string {
	found, err := filepath.Glob("/run/netns/" + l.prefix + "-*")
	if err != nil {
		l.t.Fatal(err)
	}
	return found
}

// in runs f on a thread that is in a namespace: "1" to "3", or "net".
func (l *lab) in(name string, f func() error) (err error) {
	runtime.LockOSThread()
	home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open("/run/netns/" + l.prefix + "-" + name)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", there.Name(), err)
	}
	defer func() {
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			l.t.Fatalf("a thread stays in %s: %v", there.Name(), back)
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// listen accepts connections in a namespace until the test ends.
func (l *lab) listen(host int) string {
	var ln net.Listener
	err := l.in(fmt.Sprint(host), func() (err error) {
		ln, err = net.Listen("tcp", l.address(host)+":0")
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	return ln.Addr().String()
}

// dial connects from a namespace, and reports whether that came about in time.
func (l *lab) dial(from, addr string, timeout time.Duration) error {
	return l.in(from, func() error {
		conn, err := net.DialTimeout("tcp", addr, timeout)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// TestNetns: the script makes a network, cuts and mends it, and leaves nothing.
func TestNetns(t *testing.T) {
	l := newLab(t)
	l.must("up") // again, which changes nothing
	if got := l.namespaces(); len(got) != 4 {
		t.Fatalf("namespaces %v", got)
	}
	two := l.listen(2)
	for _, from := range []string{"1", "3", "net"} {
		if err := l.dial(from, two, time.Minute); err != nil {
			t.Errorf("%s does not reach 2: %v", from, err)
		}
	}
	if err := l.dial("2", two, time.Minute); err != nil {
		t.Errorf("2 does not reach itself: %v", err)
	}
	l.must("cut", "2")
	if err := l.dial("1", two, 500*time.Millisecond); err == nil {
		t.Error("1 reaches 2, which is cut off")
	}
	if err := l.dial("1", l.listen(3), time.Minute); err != nil {
		t.Errorf("1 does not reach 3 while 2 is cut off: %v", err)
	}
	l.must("mend", "2")
	until(t, "1 reaches 2 again", func() bool { return l.dial("1", two, time.Second) == nil })
	for _, args := range [][]string{{}, {"sideways"}, {"cut"}, {"cut", "4"}, {"cut", "1; id"}} {
		if out, err := l.script(args...); err == nil || !strings.Contains(out, "want") {
			t.Errorf("scripts/netns %v: %v: %s", args, err, out)
		}
	}
	l.must("down")
	if got := l.namespaces(); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	l.must("down") // of nothing
}

// TestNetnsIsCareful: a namespace that the script did not make is not used and not
// removed.
func TestNetnsIsCareful(t *testing.T) {
	l := newLab(t)
	l.must("down")
	mine := l.prefix + "-2"
	if out, err := exec.Command("ip", "netns", "add", mine).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, action := range []string{"up", "down"} {
		if out, err := l.script(action); err == nil || !strings.Contains(out, "not of this script") {
			t.Errorf("scripts/netns %s: %v: %s", action, err, out)
		}
	}
	if _, err := os.Stat("/run/netns/" + mine); err != nil {
		t.Errorf("a foreign namespace was removed: %v", err)
	}
	if out, err := exec.Command("ip", "netns", "delete", mine).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
