package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPageOverItsResult: no page is written over a result that it is made from, whatever
// the name by which it is called.
func TestPageOverItsResult(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		earlierResult(t, filepath.Join(dir, name))
	}
	if err := errors.Join(os.Symlink("a", filepath.Join(dir, "link")), os.Symlink("b/result.json", filepath.Join(dir, "page.html")),
		os.Link(filepath.Join(dir, "a", "result.json"), filepath.Join(dir, "hard.html")),
		os.Mkdir(filepath.Join(dir, "pages"), 0o755)); err != nil {
		t.Fatal(err)
	}
	before := contents(t, filepath.Join(dir, "a"))
	for _, args := range []string{
		"report a -o a/result.json", "report a -o ./link/result.json", "report link -o a/result.json", "report a/result.json -o a/result.json",
		"report a b -o page.html", "report a -o hard.html", "report a -o pages", "report a --markdown -o a.html",
		"compare a b --html a/result.json", "compare a b --html page.html", "compare --in a mem raw --html link/result.json",
	} {
		o := inDir(t, dir, strings.Fields(args)...)
		if o.code != exitUsage || strings.Count(o.stderr, "\n") != 2 {
			t.Errorf("raftbench %s: exit code %d, want %d and why:\n%s", args, o.code, exitUsage, o.stderr)
		}
	}
	if after := contents(t, filepath.Join(dir, "a")); !maps.Equal(after, before) {
		t.Errorf("a result was written over")
	}
	for _, args := range []string{"report a -o a/report.html", "report a -o new.html", "compare a b --html new.html"} {
		if o := inDir(t, dir, strings.Fields(args)...); o.code != 0 {
			t.Errorf("raftbench %s: exit code %d:\n%s", args, o.code, o.stderr)
		}
	}
}

// TestPageToDevice: a page goes to a device, and does not take its place.
func TestPageToDevice(t *testing.T) {
	dir := t.TempDir()
	earlierResult(t, filepath.Join(dir, "a"))
	if err := os.Symlink("/dev/stdout", filepath.Join(dir, "device")); err != nil { // what takes its place takes that of the link
		t.Fatal(err)
	}
	for _, args := range []string{"report a -o device", "compare a a --html device"} {
		if o := inDir(t, dir, strings.Fields(args)...); o.code != 0 || !strings.Contains(o.stdout, "<!doctype html>") {
			t.Errorf("raftbench %s: exit code %d, printed %d B:\n%s", args, o.code, len(o.stdout), o.stderr)
		}
	}
}
