package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// agent is a `raftbench agent` in a namespace.
type agent struct {
	cmd    *exec.Cmd
	dir    string
	stderr bytes.Buffer
}

// command prepares raftbench in a namespace: "1" to "3", or "net".
func (l *lab) command(namespace string, args ...string) *exec.Cmd {
	cmd := exec.Command("ip", append([]string{"netns", "exec", l.prefix + "-" + namespace, os.Args[0]}, args...)...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	cmd.Dir = l.t.TempDir()
	return cmd
}

// startAgents starts an agent in each of the three namespaces and waits until they
// listen.
func (l *lab) startAgents(certificates string) []*agent {
	l.t.Helper()
	var agents []*agent
	for host := 1; host <= 3; host++ {
		a := &agent{dir: filepath.Join(l.t.TempDir(), "data")}
		a.cmd = l.command(fmt.Sprint(host), "agent", "--listen", l.address(host)+":7400", "--dir", a.dir, "--tls", certificates)
		a.cmd.Stderr = &a.stderr
		if err := a.cmd.Start(); err != nil {
			l.t.Fatal(err)
		}
		l.t.Cleanup(func() {
			_ = a.cmd.Process.Kill() // fails where it has ended, as it should
			_ = a.cmd.Wait()
		})
		agents = append(agents, a)
	}
	for host := 1; host <= 3; host++ {
		until(l.t, fmt.Sprintf("agent %d listens", host), func() bool {
			return l.dial("net", l.address(host)+":7400", time.Second) == nil
		})
	}
	return agents
}

// received is how many bytes have come to a host over its cable.
func (l *lab) received(host int) int64 {
	l.t.Helper()
	out, err := exec.Command("ip", "-n", fmt.Sprintf("%s-%d", l.prefix, host), "-s", "-j", "link", "show", "eth0").Output()
	var links []struct {
		Stats struct{ RX struct{ Bytes int64 } } `json:"stats64"`
	}
	if err == nil {
		err = json.Unmarshal(out, &links)
	}
	if err != nil || len(links) != 1 {
		l.t.Fatalf("what host %d received: %v: %s", host, err, out)
	}
	return links[0].Stats.RX.Bytes
}

// awaitLoad waits until entries come to a host: so many bytes at once are nothing
// that a cluster without load sends.
func (l *lab) awaitLoad(host int) {
	l.t.Helper()
	const entries = 64 << 10
	from := l.received(host)
	until(l.t, fmt.Sprintf("entries come to host %d", host), func() bool { return l.received(host) > from+entries })
}

// timeline is what --faults does to both runs of TestHosts.
const timeline = "at 300ms: cut 1-2; at 900ms: heal"

// TestHosts runs a suite on three agents with addresses of their own. A timeline
// cuts and mends a link in both of its runs; in the first the cable of a third host is
// pulled as well and put back, in the second the agent there is killed. Both must end
// with every acknowledged entry found on the others.
func TestHosts(t *testing.T) {
	l := newLab(t)
	certificates := filepath.Join(t.TempDir(), "tls")
	if o := raftbench(t, "agent", "--init", certificates); o.code != exitOK {
		t.Fatalf("agent --init: exit code %d: %s", o.code, o.stderr)
	}
	agents := l.startAgents(certificates)
	hosts := []string{l.address(1) + ":7400", l.address(2) + ":7400", l.address(3) + ":7400"}
	cmd := l.command("net", "run", "--hosts", strings.Join(hosts, ","), "--tls", certificates, "--no-probe",
		"--backends", "raw,etcd-wal", "--repeats", "1", "--load", "closed:8", "--warmup", "100ms", "--duration", "3s",
		"--faults", timeline, "--out", "out")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails where it has ended, as it should
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("coordinator:\n%s", stderr.String())
			for i, a := range agents {
				t.Logf("agent %d:\n%s", i+1, a.stderr.String())
			}
		}
	})

	l.awaitLoad(3)
	l.must("cut", "3")
	if err := l.dial("1", hosts[2], 300*time.Millisecond); err == nil {
		t.Error("node 1 reaches node 3, whose cable is pulled")
	}
	l.must("mend", "3")
	finished := func() int { return strings.Count(readFile(filepath.Join(cmd.Dir, "out", "result.json")), `"verified"`) }
	until(t, "the first run", func() bool { return finished() == 1 })
	l.awaitLoad(3)
	if err := agents[2].cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // what it says is looked at below
	checkHosts(t, outcome{code: cmd.ProcessState.ExitCode(), stderr: stderr.String(), dir: cmd.Dir}, hosts)
	for i, a := range agents[:2] {
		if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := a.cmd.Wait(); err != nil {
			t.Errorf("agent %d: %v\n%s", i+1, err, a.stderr.String())
		}
		if _, err := os.Stat(a.dir); !os.IsNotExist(err) {
			t.Errorf("agent %d left its directory behind: %v", i+1, err)
		}
	}
}

func readFile(path string) string {
	data, _ := os.ReadFile(path) // not there yet: empty
	return string(data)
}

// eventsWith are the events of a run whose text has a part.
func eventsWith(run result.Run, part string) []result.Event {
	return slices.DeleteFunc(slices.Clone(run.Events), func(e result.Event) bool { return !strings.Contains(e.Text, part) })
}

// checkHosts looks at the result of TestHosts.
func checkHosts(t *testing.T, o outcome, hosts []string) {
	t.Helper()
	r := read(t, o)
	if len(r.Hosts) != 3 || len(r.Runs) != 2 {
		t.Fatalf("exit code %d, %d hosts, %d runs\n%s", o.code, len(r.Hosts), len(r.Runs), o.stderr)
	}
	for i, h := range r.Hosts {
		if h.Addr != hosts[i] || h.Env.Cores == 0 || len(h.Calibration) == 0 {
			t.Errorf("host %d: %+v", i+1, h)
		}
	}
	for _, run := range r.Runs {
		if run.Placement != "hosts" || run.Nodes != 3 || run.Ops == 0 || run.Verified == nil || !run.Verified.OK || run.Verified.Acked < run.Ops {
			t.Errorf("%s: placement %q, %d nodes, %d operations, verified %+v, %s", run.ID, run.Placement, run.Nodes, run.Ops, run.Verified, run.Error)
		}
		if run.Faults == nil || len(run.Faults.Events) != 2 || len(eventsWith(run, "cut 1-2")) != 1 || len(eventsWith(run, "heal")) != 1 {
			t.Errorf("%s: the timeline: %+v, events %+v", run.ID, run.Faults, run.Events)
		}
	}
	cut, killed := r.Runs[0], r.Runs[1]
	if len(eventsWith(cut, hosts[2])) != 0 || slices.Contains(cut.Flags, "node_died") {
		t.Errorf("the cut: events %v, flags %v", cut.Events, cut.Flags)
	}
	if lost := eventsWith(killed, hosts[2]); len(lost) != 1 || lost[0].Node != 3 || lost[0].T <= 0 || !slices.Contains(killed.Flags, "node_died") {
		t.Errorf("the killed agent: events %+v, flags %v", killed.Events, killed.Flags)
	}
	page := readFile(filepath.Join(o.dir, "out", "report.html"))
	for _, want := range []string{"node 3 on " + hosts[2], "cut 1-2"} {
		if !strings.Contains(page, want) {
			t.Errorf("the report does not have the event %q on its time axis", want)
		}
	}
}
