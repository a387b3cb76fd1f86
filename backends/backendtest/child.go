package backendtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raftbench/raftbench/backends"
)

// Some cases let the backend work in a process of its own: one that is killed,
// or one that damage may take down. The child is the test binary itself, told by
// an environment variable to run the same test; when it comes to Run it does as
// it is told and exits.

// childEnv holds a childSpec in JSON.
const childEnv = "RAFTBENCH_BACKENDTEST_CHILD"

// childFD is where a child reports, line by line: the first of ExtraFiles.
const childFD = 3

type childSpec struct {
	Test    string // name of the test that calls Run
	Backend string
	// Crash and Probe: the one that is set says what to do.
	Crash *crashSpec `json:",omitempty"`
	Probe *probeSpec `json:",omitempty"`
}

// runChild does what the parent asked for, and exits. It returns false in a
// process that is no child, and true in a child for another Run of this test.
func runChild(t *testing.T, b backends.Backend) bool {
	text := os.Getenv(childEnv)
	if text == "" {
		return false
	}
	var spec childSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		t.Fatalf("%s=%q: %v", childEnv, text, err)
	}
	if spec.Test == t.Name() && spec.Backend == b.Name {
		spec.do(b)
	}
	return true
}

func (spec childSpec) do(b backends.Backend) {
	r := &reporter{w: os.NewFile(childFD, "report")}
	switch {
	case spec.Crash != nil:
		spec.Crash.do(b, r)
	case spec.Probe != nil:
		spec.Probe.do(b, r)
	}
	os.Exit(0)
}

// reporter is a child's way to its parent. A report has left the process when
// say returns, whatever happens then.
type reporter struct {
	mu sync.Mutex
	w  *os.File
}

func (r *reporter) say(format string, args ...any) {
	line := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ") + "\n"
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.w.WriteString(line); err != nil {
		os.Exit(1) // the parent is gone
	}
}

// child is the parent's side.
type child struct {
	cmd    *exec.Cmd
	lines  chan string // closed when the child has said its last
	output *bytes.Buffer
}

// childCommand runs this binary up to the test named test.
func childCommand(test string) *exec.Cmd {
	parts := strings.Split(test, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return exec.Command(os.Args[0], "-test.run="+strings.Join(parts, "/"), "-test.count=1", "-test.timeout=10m")
}

func (e *env) startChild(spec childSpec) *child {
	e.Helper()
	spec.Test, spec.Backend = e.test, e.b.Name
	text, err := json.Marshal(spec)
	if err != nil {
		e.tb.Fatalf("%v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		e.tb.Fatalf("%v", err)
	}
	defer w.Close()
	c := &child{cmd: e.command(e.test), lines: make(chan string), output: &bytes.Buffer{}}
	c.cmd.Env = append(c.cmd.Environ(), childEnv+"="+string(text))
	c.cmd.ExtraFiles = []*os.File{w}
	c.cmd.Stdout, c.cmd.Stderr = c.output, c.output
	if err := c.cmd.Start(); err != nil {
		e.tb.Fatalf("start a child process: %v", err)
	}
	go func() {
		defer r.Close()
		defer close(c.lines)
		scanner := bufio.NewScanner(r)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			c.lines <- scanner.Text()
		}
	}()
	return c
}

// next is the child's next report, or false at its end. A child that says nothing
// for so long is killed.
func (c *child) next(patience time.Duration) (line string, ok bool, err error) {
	select {
	case line, ok = <-c.lines:
		if !ok {
			c.cmd.Wait()
		}
		return line, ok, nil
	case <-time.After(patience):
		c.kill()
		return "", false, fmt.Errorf("nothing happened for %s", patience)
	}
}

// kill ends the child at once, as kill -9 does, drops what it still says and
// waits for it.
func (c *child) kill() {
	c.cmd.Process.Kill()
	for range c.lines {
	}
	c.cmd.Wait()
}

// lastWords is the end of what the child printed: the reason for a crash.
func (c *child) lastWords() string {
	out := bytes.TrimSpace(c.output.Bytes())
	if len(out) > 3000 {
		out = append([]byte("… "), out[len(out)-3000:]...)
	}
	return string(out)
}
