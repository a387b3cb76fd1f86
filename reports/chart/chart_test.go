package chart

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// testNames are 14 names, long ones and such with parameters among them.
var testNames = []string{
	"etcd-wal", "bbolt", "badger", "pebble", "hashicorp-wal", "bbolt[freelist=array]",
	"bbolt[freelist=array,nofreelistsync=true]", "badger[valuethreshold=64KiB]", "pebble[memtable=64MiB]",
	"pebble[bytespersync=512KiB,memtable=64MiB]", "etcd-wal[segment=16MiB]", "a-strangers-log-structured-engine", "raw", "mem",
}

func styleOf(i int) Style {
	switch testNames[i] {
	case "raw":
		return Floor
	case "mem":
		return Ceiling
	}
	return Style(i)
}

// drawer is any figure.
type drawer interface {
	draw(width int) *canvas
	SVG(width int) string
}

// testFigures are one of each kind, with n backends.
func testFigures(n int) map[string]drawer {
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	quantiles := []float64{2, 3, 5, 10, 100, 1000, 10000, 50000}
	var tail, curve, over []Series
	var rows []Row
	var effects []Effect
	var bars []Bar
	var clouds []Cloud
	var runs []Row
	for i := range n {
		name, style := testNames[i], styleOf(i)
		s := Series{Name: name, Style: style}
		for k, q := range quantiles {
			s.X, s.Y = append(s.X, q), append(s.Y, 2e5*math.Pow(2.2, float64(k))*(1+float64(i)/3))
			s.Mark = append(s.Mark, k == 0 || k > 2)
		}
		tail = append(tail, s)
		l := Series{Name: name, Style: style, Marks: true}
		for k := 1; k <= 8; k++ {
			x := float64(k) * 4000 * (1 - float64(i)/30)
			l.X, l.Y, l.Hollow = append(l.X, x), append(l.Y, 1e6*math.Exp(float64(k*k)/14)*(1+float64(i)/9)), append(l.Hollow, k == 8)
		}
		curve = append(curve, l)
		t := Series{Name: name, Style: style}
		h := &Heat{}
		for j := 0.0; j < 22; j++ {
			h.Y = append(h.Y, 1000*math.Pow(2, j-1))
		}
		for sec := 1.0; sec <= 12; sec++ {
			v := 20000 * (1 - float64(i)/20) * (1 + 0.1*rng.NormFloat64())
			t.X, t.Y, t.Lo, t.Hi = append(t.X, sec*1e9), append(t.Y, v), append(t.Lo, v*.9), append(t.Hi, v*1.1)
			h.X = append(h.X, sec*1e9)
			cells := make([]float64, 20)
			for j := range cells {
				cells[j] = math.Floor(v * math.Exp(-math.Pow(float64(j)-9, 2)/3))
			}
			h.Cells = append(h.Cells, cells)
		}
		over = append(over, t)
		rows = append(rows, Row{Name: name, Style: style, Panels: []Panel{
			{Title: "throughput, ops/s", X: Axis{Kind: Seconds}, Y: Axis{Kind: Rate}, Series: []Series{t}, Shade: [][2]float64{{0, 1e9}}, Events: []Event{{3.2e9, "snapshot: at index 7", "snapshot"}, {3.3e9, "gc", "garbage collection"}, {3.4e9, "cut", "network cut, node 3"}, {11.9e9, "heal", "network healed, node 3"}}},
			{Title: "latency heat map", X: Axis{Kind: Seconds}, Y: Axis{Kind: Duration, Log: true}, Heat: h},
		}})
		ratio := 1 - float64(i)/16
		effects = append(effects, Effect{Name: name, Style: style, Ratio: ratio, Lo: ratio * .97, Hi: ratio * 1.04, Text: fmt.Sprintf("%.2f× (%.2f–%.2f) slower", ratio, ratio*.97, ratio*1.04), Base: i == 0})
		dots := Series{Name: name, Style: style, NoLine: true}
		for k := range 20 {
			dots.X, dots.Y = append(dots.X, float64(k*n+i)), append(dots.Y, 0.1*math.Sin(float64(k)*1.7))
		}
		runs = append(runs, Row{Name: name, Style: style, Panels: []Panel{{X: Axis{Kind: Number}, Y: Axis{Kind: Percent}, Series: []Series{dots}}}})
		clouds = append(clouds, Cloud{Name: name, Style: style, Values: []float64{3e6 * float64(i+1), 3.3e6 * float64(i+1), 2.8e6 * float64(i+1)}, Text: "3.1 ms"})
		bars = append(bars, Bar{Name: name, Style: style, Parts: []float64{1e5 * float64(i+1), 3e5, 2e5, 2e4}, Text: "1.23 ms"})
	}
	return map[string]drawer{
		"tail": Grid{Label: "tail", Legend: over, Height: 180, Across: [2]int{2, 1}, SharedY: true, Rows: []Row{{Panels: []Panel{
			{Title: "response time", X: Axis{Kind: Quantile, Log: true, Title: "percentile"}, Y: Axis{Kind: Duration, Log: true}, Series: tail},
			{Title: "Save", X: Axis{Kind: Quantile, Log: true}, Y: Axis{Kind: Duration, Log: true}, Series: tail, Refs: []Ref{{At: 131e3, Name: "raw disk, 131 µs"}, {At: 140e3, Name: "objective, 140 µs"}}},
		}}}},
		"curve": Lines{Label: "curve", Panel: Panel{X: Axis{Kind: Rate, Title: "achieved, ops/s"}, Y: Axis{Kind: Duration, Log: true, Title: "response p99 (log)"},
			Series: curve, Refs: []Ref{{At: 1e7, Name: "objective: p99 < 10 ms"}}}},
		"extreme": Lines{Label: "extreme", Panel: Panel{X: Axis{Kind: Bytes, Log: true, Title: "state"}, Y: Axis{Kind: Duration, Log: true, Title: "install"},
			Series: extreme(n)}},
		"repeats": Grid{Label: "repeats", Rows: runs, Height: 46, Compact: true},
		"over":    Grid{Label: "over", Rows: rows, Height: 70},
		"forest":  Forest{Label: "forest", Left: "← slower", Right: "faster than etcd-wal →", Noise: 0.03, Rows: effects},
		"strip":   Strip{Label: "strip", Kind: Duration, Rows: clouds},
		"bars":    Bars{Label: "bars", Parts: []string{"queue", "Save", "replicate", "apply"}, Kind: Duration, Rows: bars},
	}
}

// extreme puts 1 µs beside 10 s, and figures that cannot be drawn.
func extreme(n int) []Series {
	var out []Series
	for i := range n {
		out = append(out, Series{Name: testNames[i], Style: styleOf(i), Marks: true,
			X: []float64{1, 1 << 20, 1 << 30, 1 << 40, 5}, Y: []float64{1e3, math.NaN(), 1e10, math.Inf(1), -3}})
	}
	return out
}

func TestGolden(t *testing.T) {
	for _, n := range []int{1, 2, 7, 14} {
		for name, fig := range testFigures(n) {
			for _, width := range []int{960, 328} {
				svg := fig.SVG(width)
				checkXML(t, name, svg)
				checkOverlap(t, fmt.Sprintf("%s, %d backends, %d px", name, n, width), fig.draw(width))
				if n != 7 && n != 14 || width == 328 && n == 7 {
					continue // one golden for each layout is enough to read
				}
				golden(t, fmt.Sprintf("%s-%d-%d.svg", name, n, width), svg)
			}
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	got = strings.ReplaceAll(got, "><", ">\n<") + "\n"
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs; look at the drawing and run the test with -update", path)
	}
}

// checkXML demands that a drawing is well-formed on its own.
func checkXML(t *testing.T, name, svg string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
	}
}

// checkOverlap demands that no two texts touch and none leaves the drawing.
func checkOverlap(t *testing.T, name string, c *canvas) {
	t.Helper()
	for i, a := range c.texts {
		if a.x0 < -1 || a.x1 > c.w+1 || a.y0 < -1 || a.y1 > c.h+1 {
			t.Errorf("%s: %q leaves the drawing of %g × %g: %+v", name, a.s, c.w, c.h, a)
		}
		for _, b := range c.texts[i+1:] {
			if a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1 {
				t.Errorf("%s: %q and %q overlap: %+v %+v", name, a.s, b.s, a, b)
			}
		}
	}
}
