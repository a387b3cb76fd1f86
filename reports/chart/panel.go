package chart

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// Series is one line, or one cloud of points.
type Series struct {
	Name   string
	Style  Style
	X, Y   []float64
	Lo, Hi []float64 // band around Y, if as long as X
	Hollow []bool    // markers drawn as outlines, e.g. where a load was not reached
	NoLine bool      // points alone
	// LineX and LineY are a line beside the points of a series without one of its
	// own: through their medians.
	LineX, LineY []float64
	Marks        bool   // markers on a line
	Mark         []bool // markers on these points of a line alone, as many as X
}

// Ref is a horizontal line with a name: a floor, an objective.
type Ref struct {
	At   float64
	Name string
}

// Event is a mark on the time axis.
type Event struct {
	At    float64
	Name  string // what happened, in full: the tooltip
	Label string // the same in a word or two, beside the line where there is room; may be empty
}

// Heat is a matrix of counts: Cells[i][j] in column i, whose right edge is at
// X[i], and row j between Y[j] and Y[j+1].
type Heat struct {
	From  float64 // left edge of the first column
	X     []float64
	Y     []float64
	Cells [][]float64
}

// heatClasses is the number of colours of a heat map.
const heatClasses = 6

// Panel is one pair of axes with what is drawn on them.
type Panel struct {
	Title  string // what is shown, with its unit
	X, Y   Axis
	Series []Series
	Refs   []Ref
	Shade  [][2]float64 // x ranges that do not count: warm-up
	Events []Event
	Heat   *Heat
	Band   [2]float64 // y range that means nothing happened: noise
}

// values gathers what the axes must cover.
func (p *Panel) values() (xs, ys []float64) {
	for _, s := range p.Series {
		xs = append(xs, s.X...)
		ys = append(ys, s.Y...)
		ys = append(ys, s.Lo...)
		ys = append(ys, s.Hi...)
	}
	for _, r := range p.Refs {
		ys = append(ys, r.At)
	}
	if p.Heat != nil {
		xs = append(append(xs, p.Heat.From), p.Heat.X...)
		ys = append(ys, p.Heat.used()...)
	}
	return xs, ys
}

// used are the edges of the rows that hold a count.
func (h *Heat) used() []float64 {
	var out []float64
	for _, column := range h.Cells {
		for j, n := range column {
			if n > 0 && j+1 < len(h.Y) {
				out = append(out, h.Y[j], h.Y[j+1])
			}
		}
	}
	return out
}

// frame is where a panel goes on the canvas, and which of its labels are drawn.
type frame struct {
	x0, y0, x1, y1 float64 // the plot itself
	xLabels        bool
	yLabels        bool
}

// draw puts the panel into its frame. x and y are the placed axes.
func (c *canvas) panel(p *Panel, f frame, x, y scaled) {
	c.open(`<g class="p" data-x="` + x.data() + `" data-y="` + y.data() + `">`)
	for _, r := range p.Shade {
		a, aok := x.at(r[0])
		b, bok := x.at(r[1])
		if aok && bok && b > a {
			c.rect("sh", a, f.y0, b-a, f.y1-f.y0, "")
		}
	}
	if p.Band[0] < p.Band[1] {
		a, _ := y.at(p.Band[0])
		b, _ := y.at(p.Band[1])
		c.rect("sh", f.x0, b, f.x1-f.x0, a-b, "")
	}
	c.axes(f, x, y)
	if p.Heat != nil {
		c.heat(p.Heat, x, y)
	}
	for _, r := range p.Refs {
		if py, ok := y.at(r.At); ok {
			c.hline("rf", f.x0, f.x1, py)
		}
	}
	c.events(p.Events, f, x)
	for i := range p.Series {
		c.series(&p.Series[i], x, y)
	}
	c.refNames(p.Refs, f, y) // over points that lie there
	c.eventLabels(p.Events, f, x)
	c.close("</g>")
}

// axes draws grid lines, ticks and their labels, leaving out labels that would
// touch the one before.
func (c *canvas) axes(f frame, x, y scaled) {
	last := math.Inf(1)
	for _, t := range y.ticks {
		py, ok := y.at(t)
		if !ok {
			continue
		}
		c.hline("g", f.x0, f.x1, py)
		if f.yLabels && last-py >= 14 {
			c.text(f.x0-6, py+4, end, "mu sm", y.Kind.label(t))
			last = py
		}
	}
	right := math.Inf(-1)
	for _, t := range x.ticks {
		px, ok := x.at(t)
		if !ok {
			continue
		}
		c.vline("g", px, f.y1, f.y1+4)
		label := x.Kind.label(t)
		w := textWidth(label, false, true)
		if f.xLabels && px-w/2 > right+3 && px+w/2 <= c.w {
			c.text(px, f.y1+16, middle, "mu sm", label)
			right = px + w/2
		}
	}
	c.hline("ax", f.x0, f.x1, f.y1)
}

// refNames names the reference lines, above them at the left of the plot; names of
// lines that lie close are stacked.
func (c *canvas) refNames(refs []Ref, f frame, y scaled) {
	refs = slices.Clone(refs)
	slices.SortStableFunc(refs, func(a, b Ref) int { return cmp.Compare(a.At, b.At) })
	ceiling := math.Inf(1)
	for _, r := range refs {
		py, ok := y.at(r.At)
		if !ok {
			continue
		}
		at := min(py-4, ceiling)
		if at-10 < f.y0 {
			continue // no room: the line stays without its name
		}
		ceiling = at - 14
		c.text(f.x0+6, at, start, "mu sm ha", fit(r.Name, f.x1-f.x0-12, false, true))
	}
}

func (c *canvas) events(events []Event, f frame, x scaled) {
	for _, e := range events {
		px, ok := x.at(e.At)
		if !ok {
			continue
		}
		c.raw(`<path class="ev" d="M` + num(px) + " " + num(f.y0) + "V" + num(f.y1) + `"><title>` + escape(e.Name) + "</title></path>")
	}
}

// Events' labels stand in rows of this height at the top of the plot.
const (
	eventRows   = 3
	eventHeight = 13.0
)

// eventLabels puts the words of events beside their lines, in the first row where
// one fits; an event without room keeps its line and its tooltip.
func (c *canvas) eventLabels(events []Event, f frame, x scaled) {
	rows := min(eventRows, int((f.y1-f.y0)/(2*eventHeight)))
	edges := make([]float64, max(rows, 0)) // right end of the last label of each row
	for i := range edges {
		edges[i] = f.x0 - 4
	}
	for _, e := range slices.SortedStableFunc(slices.Values(events), func(a, b Event) int { return cmp.Compare(a.At, b.At) }) {
		px, ok := x.at(e.At)
		w := textWidth(e.Label, false, true)
		left := px + 3
		if left+w > f.x1 {
			left = px - 3 - w
		}
		if !ok || e.Label == "" {
			continue
		}
		for i, edge := range edges {
			if left >= edge+4 {
				c.text(left, f.y0+9+float64(i)*eventHeight, start, "wa sm ha", e.Label)
				edges[i] = left + w
				break
			}
		}
	}
}

// series draws one series in its own group, which scripts can hide.
func (c *canvas) series(s *Series, x, y scaled) {
	points, hollow := s.project(x, y)
	c.open(`<g class="` + s.Style.class() + `" data-b="` + num(float64(s.Style)) + `" data-n="` + escape(s.Name) + `">`)
	if len(s.Lo) == len(s.X) && len(s.Hi) == len(s.X) {
		c.band(s, x, y)
	}
	if !s.NoLine {
		c.line(points)
	} else if len(s.LineX) > 1 {
		through, _ := (&Series{X: s.LineX, Y: s.LineY}).project(x, y)
		c.line(through)
	}
	switch {
	case s.NoLine || s.Marks || countFinite(points) == 1:
		c.markers(s.Style, finite(points), hollow, 3.6)
	case len(s.Mark) == len(points):
		var some []point
		for i, p := range points {
			if s.Mark[i] {
				some = append(some, p)
			}
		}
		c.markers(s.Style, finite(some), nil, 3)
	}
	c.close("</g>")
}

// project maps the series to pixels; what the axes cannot show is NaN. hollow
// goes with the points that can be shown.
func (s *Series) project(x, y scaled) (points []point, hollow []bool) {
	for i := range min(len(s.X), len(s.Y)) {
		px, xok := x.at(s.X[i])
		py, yok := y.at(s.Y[i])
		if !xok || !yok {
			points = append(points, point{math.NaN(), math.NaN()})
			continue
		}
		points = append(points, point{px, py})
		hollow = append(hollow, i < len(s.Hollow) && s.Hollow[i])
	}
	return points, hollow
}

func finite(ps []point) []point {
	var out []point
	for _, p := range ps {
		if !math.IsNaN(p.x) {
			out = append(out, p)
		}
	}
	return out
}

func countFinite(ps []point) int { return len(finite(ps)) }

// line draws a path through the points, interrupted where one is missing.
func (c *canvas) line(ps []point) {
	var b strings.Builder
	pen := false
	for _, p := range ps {
		if math.IsNaN(p.x) {
			pen = false
			continue
		}
		if pen {
			b.WriteByte('L')
		} else {
			b.WriteByte('M')
		}
		b.WriteString(num(p.x) + " " + num(p.y))
		pen = true
	}
	if b.Len() > 0 {
		c.raw(`<path class="l" d="` + b.String() + `"/>`)
	}
}

// band fills the space between Lo and Hi.
func (c *canvas) band(s *Series, x, y scaled) {
	var up, down []string
	for i := range s.X {
		px, ok := x.at(s.X[i])
		lo, lok := y.at(s.Lo[i])
		hi, hok := y.at(s.Hi[i])
		if !ok || !lok || !hok {
			continue
		}
		up = append(up, num(px)+" "+num(hi))
		down = append(down, num(px)+" "+num(lo))
	}
	if len(up) < 2 {
		return
	}
	var b strings.Builder
	b.WriteString("M" + strings.Join(up, "L"))
	for i := len(down) - 1; i >= 0; i-- {
		b.WriteString("L" + down[i])
	}
	c.raw(`<path class="b" d="` + b.String() + `z"/>`)
}

// heat draws the cells, one path per colour class; classes are equal steps of
// the logarithm of the count. Neighbours of one class are one rectangle.
func (c *canvas) heat(h *Heat, x, y scaled) {
	most := 0.0
	for _, column := range h.Cells {
		for _, n := range column {
			if n < absurd {
				most = math.Max(most, n)
			}
		}
	}
	paths := make([]strings.Builder, heatClasses)
	columns := min(len(h.X), len(h.Cells))
	for j := range max(len(h.Y)-1, 0) {
		lo, lok := y.at(h.Y[j])
		hi, hok := y.at(h.Y[j+1])
		if !lok || !hok {
			continue
		}
		for i := 0; i < columns; {
			class, from := h.class(i, j, most), i
			for i++; i < columns && h.class(i, j, most) == class; i++ {
			}
			x0, ok0 := x.at(h.left(from))
			x1, ok1 := x.at(h.X[i-1])
			if class >= 0 && ok0 && ok1 {
				paths[class].WriteString("M" + num(x0) + " " + num(hi) + "H" + num(x1) + "V" + num(lo) + "H" + num(x0) + "z")
			}
		}
	}
	for k := range paths {
		if paths[k].Len() > 0 {
			c.raw(`<path class="h` + num(float64(k)) + `" d="` + paths[k].String() + `"/>`)
		}
	}
}

// left is the left edge of column i.
func (h *Heat) left(i int) float64 {
	if i == 0 {
		return h.From
	}
	return h.X[i-1]
}

// class is the colour of a cell; -1 for an empty one.
func (h *Heat) class(i, j int, most float64) int {
	if j >= len(h.Cells[i]) {
		return -1
	}
	n := h.Cells[i][j]
	switch {
	case !(n > 0) || n >= absurd:
		return -1
	case most <= 1 || n < 1:
		return 0
	}
	return min(int(math.Log(n)/math.Log(most)*heatClasses), heatClasses-1)
}
