package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"
	"golang.org/x/term"

	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/reports"
)

// progress tells a person what is going on: a line that changes on a terminal,
// and one line for each finished run anywhere.
type progress struct {
	w       io.Writer
	live    bool // w is a terminal
	width   int
	pending bool // a live line stands there
}

// newProgress writes to w; quiet shows nothing.
func newProgress(w io.Writer, quiet bool) *progress {
	if quiet {
		return &progress{w: io.Discard}
	}
	p := &progress{w: w, width: 100}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.live = true
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			p.width = width
		}
	}
	return p
}

// show is a bench.Spec.Progress of a suite.
func (p *progress) show(e bench.Progress, spec *bench.Spec) {
	switch e.Phase {
	case "plan":
		p.plan(spec)
		return
	case "done":
		p.finished(e)
		return
	}
	if !p.live {
		return
	}
	line := fmt.Sprintf("block %d/%d  %-14s %-9s", e.Block, e.Blocks, e.Backend, e.Phase)
	if e.Backend == "" {
		line = fmt.Sprintf("block %d/%d  %s", e.Block, e.Blocks, e.Phase)
	}
	if e.Ops > 0 {
		line += " " + reports.RateLine(e.Ops, e.P99)
	}
	if e.Left > 0 {
		line += "  about " + e.Left.Round(time.Second).String() + " left"
	}
	p.line(line)
}

// line changes the live line; nothing happens where there is no terminal.
func (p *progress) line(text string) {
	if !p.live {
		return
	}
	p.clear()
	fmt.Fprint(p.w, clip(text, p.width-1))
	p.pending = true
}

// plan says what is ahead.
func (p *progress) plan(spec *bench.Spec) {
	runs, took := spec.Estimate()
	about := ""
	if spec.Load.Kind == bench.LoadSearch {
		about = "about "
	}
	fmt.Fprintf(p.w, "%s%s in %s, about %v\n", about, english.Plural(runs, "run", ""), english.Plural(spec.Repeats, "block", ""), took.Round(time.Second))
	if spec.Resume != nil {
		fmt.Fprintf(p.w, "%d of them are finished\n", len(spec.Resume.Runs))
	}
}

// clear removes the live line.
func (p *progress) clear() {
	if p.pending {
		fmt.Fprint(p.w, "\r", strings.Repeat(" ", max(p.width-1, 0)), "\r")
		p.pending = false
	}
}

func (p *progress) finished(e bench.Progress) {
	p.clear()
	fmt.Fprintf(p.w, "%*d/%d  block %d  %s\n", len(fmt.Sprint(e.Runs)), e.Order, e.Runs, e.Block, reports.RunLine(e.Run))
}

func clip(s string, width int) string {
	if r := []rune(s); len(r) > width && width > 0 {
		return string(r[:width])
	}
	return s
}
