package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/reports"
)

// inDir runs raftbench in a directory.
func inDir(t *testing.T, dir string, args ...string) outcome {
	t.Helper()
	cmd, stdout, stderr := command(t, args...)
	cmd.Dir = dir
	return finish(t, cmd, stdout, stderr)
}

// contents are the files below a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir+string(filepath.Separator))] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// earlierResult is one of an hour's work, as far as raftbench can tell.
func earlierResult(t *testing.T, dir string) *result.Result {
	t.Helper()
	r := &result.Result{Schema: result.Schema, ID: "earlier", Command: []string{"raftbench", "run"},
		Started: time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC), Runs: series("mem", 6, 1, 1)}
	if err := reports.Write(dir, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestEarlierResultIsSetAside: a suite never writes over what another left.
func TestEarlierResultIsSetAside(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	earlierResult(t, out)
	before := contents(t, out)

	for _, failing := range [][]string{{"--nodes", "0"}, {"--dir", "no/such"}, {"--backends", "raw[colour=red]"}} {
		if o := inDir(t, dir, tiny(failing...)...); o.code == 0 {
			t.Fatalf("%v: exit code 0", failing)
		}
		if after := contents(t, out); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%v: a suite that measured nothing changed the earlier result", failing)
		}
	}

	for _, aside := range []string{"earlier-20260102T150405Z", "earlier-"} {
		o := inDir(t, dir, tiny("--quiet")...)
		if o.code != 0 || !strings.Contains(o.stderr, "the earlier result in out is now in out/"+aside) {
			t.Fatalf("exit code %d, want 0 and where the earlier result is:\n%s", o.code, o.stderr)
		}
	}
	after := contents(t, out)
	for name, text := range before {
		if after["earlier-20260102T150405Z/"+name] != text {
			t.Errorf("%s of the earlier result is not what it was", name)
		}
		delete(after, "earlier-20260102T150405Z/"+name)
		delete(after, name)
	}
	if len(after) != len(before) { // those of the suite between
		t.Errorf("%d more files", len(after)-len(before))
	}
	if o := inDir(t, dir, "report", "out/earlier-20260102T150405Z"); o.code != 0 {
		t.Errorf("report of what was set aside: exit code %d:\n%s", o.code, o.stderr)
	}
}

// TestSetAsideTwice: results of one second, or one that was set aside in part, do not meet.
func TestSetAsideTwice(t *testing.T) {
	dir := t.TempDir()
	o := &outDir{path: dir, log: io.Discard}
	for n := 1; n <= 3; n++ {
		o.earlier = earlierResult(t, dir)
		if err := o.setAside(); err != nil {
			t.Fatal(err)
		}
		if files := contents(t, dir); len(files) != n*len(resultFiles) {
			t.Fatalf("%d files of %d results", len(files), n)
		}
	}
}

// TestForeignFiles: what only has the name of a result's file is somebody's.
func TestForeignFiles(t *testing.T) {
	for name, text := range map[string]string{
		"bench.txt":   "BenchmarkMine 1 2 ns/op\n",
		"report.html": "mine",
		"result.json": `{"schema": "raftbench/v9", "runs": []}`,
	} {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "out", name), text)
		o := inDir(t, dir, tiny()...)
		if o.code != exitUsage || !strings.Contains(o.stderr, "out holds "+name) {
			t.Errorf("%s: exit code %d, want %d:\n%s", name, o.code, exitUsage, o.stderr)
		}
		if after := contents(t, dir); len(after) != 1 || after[filepath.Join("out", name)] != text {
			t.Errorf("%s was touched: %v", name, after)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// TestOutIsLocked: of two suites on one directory the second ends before any work, and a
// killed one blocks nobody.
func TestOutIsLocked(t *testing.T) {
	cmd, _, _ := start(t, tiny("--duration", "1h", "--dir", "data")...)
	until(t, "the first run", func() bool {
		_, err := os.Stat(filepath.Join(cmd.Dir, "data", "run-001-mem"))
		return err == nil
	})
	holder := "in use by another raftbench run"
	if lockListed(t, filepath.Join(cmd.Dir, "out")) {
		holder += fmt.Sprintf(" (process %d)", cmd.Process.Pid)
	}
	for _, again := range [][]string{tiny(), tiny("--out", "./out/../out")} {
		o := inDir(t, cmd.Dir, again...)
		if o.code != exitFailure || !strings.Contains(o.stderr, holder) || strings.Contains(o.stderr, "block") {
			t.Errorf("exit code %d, want %d and %q alone:\n%s", o.code, exitFailure, holder, o.stderr)
		}
	}
	if got := left(t, cmd.Dir); got != "data out" {
		t.Errorf("a suite that was refused left something: %s", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if o := inDir(t, cmd.Dir, tiny()...); o.code != 0 {
		t.Errorf("after a kill: exit code %d:\n%s", o.code, o.stderr)
	}
}

// lockListed reports whether the kernel lists a lock on a directory under the numbers by
// which stat knows it, as it does not of overlay and btrfs.
func lockListed(t *testing.T, dir string) bool {
	t.Helper()
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	dev := uint64(st.Dev)
	locks, _ := os.ReadFile("/proc/locks") // no such list, no such lock
	return strings.Contains(string(locks), fmt.Sprintf(" %02x:%02x:%d ", unix.Major(dev), unix.Minor(dev), st.Ino))
}

// TestNothingIsLeft: a suite that failed removes the directories that it made, and no others.
func TestNothingIsLeft(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "mine"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{"a/b/c", "mine/a", "mine"} {
		if o := inDir(t, dir, tiny("--out", out, "--dir", "no/such")...); o.code != exitFailure {
			t.Errorf("exit code %d:\n%s", o.code, o.stderr)
		}
		if got := left(t, dir) + " " + left(t, filepath.Join(dir, "mine")); got != "mine " {
			t.Errorf("--out %s left %s", out, got)
		}
	}
}

// TestPublishWithoutDisk: where the files cannot be written, what was measured is printed all
// the same, and a loss is still the news.
func TestPublishWithoutDisk(t *testing.T) {
	runs := series("raw", 1, 1, 1)
	for code, lost := range map[int]bool{exitFailure: false, exitLost: true} {
		runs[0].Verified = &result.Verified{OK: !lost}
		var stdout, stderr bytes.Buffer
		a := &app{stdout: &stdout, stderr: &stderr}
		file := filepath.Join(t.TempDir(), "file")
		writeFile(t, file, "no directory")
		err := a.publish(&result.Result{Runs: runs}, nil, &outDir{path: file, log: io.Discard}, &runFlags{})
		if exitCode(err) != code || !strings.Contains(fmt.Sprint(err), "write report") || !strings.Contains(stdout.String(), "ops/s") {
			t.Errorf("lost %v: exit code %d, want %d, and the table:\n%v\n%s", lost, exitCode(err), code, err, stdout.String())
		}
		if strings.Contains(stderr.String(), "report:") {
			t.Errorf("a report is named that is not there:\n%s", stderr.String())
		}
	}
}
