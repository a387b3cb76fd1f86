// Package chart draws the figures of a report as SVG: lines with bands, small
// multiples, heat maps, forest plots, stacked bars and dots.
//
// A figure is a plain value; its SVG method draws it for a width in CSS pixels,
// and chooses its own height. The same value is drawn once for a wide page and
// once for a phone, because text that is scaled down cannot be read. Nothing
// here needs a script or a font: sizes are computed from conservative text
// widths, so that labels do not collide in whatever sans-serif the reader has.
//
// Colours come from CSS custom properties (see CSS), so that one drawing serves
// light, dark and print. A series is told apart by colour, marker and dash.
//
// Figures mark what they draw for scripts: a group of series i carries
// data-b="i", a panel carries its axes in data-x and data-y. All text is
// escaped.
package chart

import (
	"html"
	"strconv"
	"strings"
	"unicode"
)

// CSS styles the figures inside an HTML page. Custom properties that the page
// must define: --ink, --muted, --rule, --paper, --band, --s0 to --s6, --floor,
// --ceiling, --t0 to --t4, --h0 to --h5, --warn.
const CSS = `
.chart{display:block;width:100%;height:auto;overflow:visible;font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-size:12px;fill:var(--ink);font-variant-numeric:tabular-nums}
.chart text{stroke:none}
.chart .mu{fill:var(--muted)}
.chart .sm{font-size:11px}
.chart .bo{font-weight:600}
.chart .g{stroke:var(--rule);fill:none}
.chart .ax{stroke:var(--muted);fill:none}
.chart .sh{fill:var(--band)}
.chart .pa{fill:var(--paper)}
.chart .l{fill:none;stroke:var(--c);stroke-width:1.75;stroke-linejoin:round;stroke-linecap:round}
.chart .m{fill:var(--c);stroke:var(--c);stroke-width:1.5;stroke-linejoin:round}
.chart .o{fill:var(--paper);stroke:var(--c);stroke-width:1.5;stroke-linejoin:round}
.chart .b{fill:var(--c);fill-opacity:.16;stroke:none}
.chart .f{fill:var(--c)}
.chart .ld{stroke:var(--muted);stroke-width:.75;fill:none}
.chart .rf{stroke:var(--muted);stroke-width:1.25;stroke-dasharray:2 3;fill:none}
.chart .ev{stroke:var(--warn);stroke-width:1;fill:none}
.chart .wa{fill:var(--warn)}
.chart .ha{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
.chart .d1 .l{stroke-dasharray:6 3}
.chart .d2 .l{stroke-dasharray:1.5 3.5}
.chart .d3 .l{stroke-dasharray:8 3 1.5 3}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}.s6{--c:var(--s6)}
.sf{--c:var(--floor)}.sc{--c:var(--ceiling)}.sr{--c:var(--muted)}
.t0{--c:var(--t0)}.t1{--c:var(--t1)}.t2{--c:var(--t2)}.t3{--c:var(--t3)}.t4{--c:var(--t4)}
.chart .h0{fill:var(--h0)}.chart .h1{fill:var(--h1)}.chart .h2{fill:var(--h2)}.chart .h3{fill:var(--h3)}.chart .h4{fill:var(--h4)}.chart .h5{fill:var(--h5)}
`

// Style is the look of one series: its place in the palette, or a control.
type Style int

// Styles of the controls, and of what backends are held against; all are drawn in
// neutral colours.
const (
	Floor     Style = -1
	Ceiling   Style = -2
	Reference Style = -3
)

const colours = 7

// Colour is the CSS class that sets the style's colour, --c.
func (s Style) Colour() string {
	switch s {
	case Floor:
		return "sf"
	case Ceiling:
		return "sc"
	case Reference:
		return "sr"
	}
	return "s" + strconv.Itoa(int(max(s, 0))%colours)
}

// class is the CSS classes of the style: colour and dash.
func (s Style) class() string {
	dash := int(max(s, 0)) / colours % 4
	switch s {
	case Floor:
		dash = 1
	case Ceiling:
		dash = 2
	}
	if dash == 0 {
		return s.Colour()
	}
	return s.Colour() + " d" + strconv.Itoa(dash)
}

// hollow reports whether the style's markers are outlines, which tells the
// second round through the palette from the first.
func (s Style) hollow() bool { return s >= colours && int(s)/colours%2 == 1 }

// Swatch is a small drawing of a style (line and marker) for legends in HTML.
func Swatch(s Style) string {
	c := newCanvas(30, 12)
	c.open(`<g class="` + s.class() + `">`)
	c.raw(`<path class="l" d="M1 6H29"/>`)
	c.markers(s, []point{{15, 6}}, nil, 4)
	c.close("</g>")
	return `<svg class="chart sw" viewBox="0 0 30 12" width="30" height="12" aria-hidden="true">` + c.String() + "</svg>"
}

// canvas gathers SVG elements, and the boxes of all text, which tests check for
// overlaps.
type canvas struct {
	b     strings.Builder
	w, h  float64
	texts []textBox
}

type textBox struct {
	x0, y0, x1, y1 float64
	s              string
}

type point struct{ x, y float64 }

func newCanvas(w, h float64) *canvas { return &canvas{w: w, h: h} }

func (c *canvas) String() string { return c.b.String() }
func (c *canvas) raw(s string)   { c.b.WriteString(s) }
func (c *canvas) open(s string)  { c.b.WriteString(s) }
func (c *canvas) close(s string) { c.b.WriteString(s) }

// svg closes the drawing. label is what a screen reader says of it.
func (c *canvas) svg(class, label string) string {
	return `<svg class="chart ` + class + `" viewBox="0 0 ` + num(c.w) + ` ` + num(c.h) + `" width="` + num(c.w) + `" height="` + num(c.h) +
		`" role="img" aria-label="` + escape(label) + `" xmlns="http://www.w3.org/2000/svg">` + c.b.String() + "</svg>"
}

// Anchors of text.
const (
	start  = "start"
	middle = "middle"
	end    = "end"
)

// text writes s with its baseline at y.
func (c *canvas) text(x, y float64, anchor, class, s string) {
	if s == "" {
		return
	}
	w := textWidth(s, strings.Contains(class, "bo"), strings.Contains(class, "sm"))
	x0 := x
	switch anchor {
	case middle:
		x0 -= w / 2
	case end:
		x0 -= w
	}
	c.texts = append(c.texts, textBox{x0, y - 9.5, x0 + w, y + 2.5, s})
	c.raw(`<text x="` + num(x) + `" y="` + num(y) + `"`)
	if anchor != start {
		c.raw(` text-anchor="` + anchor + `"`)
	}
	if class != "" {
		c.raw(` class="` + class + `"`)
	}
	c.raw(">" + escape(s) + "</text>")
}

func (c *canvas) hline(class string, x0, x1, y float64) {
	c.raw(`<path class="` + class + `" d="M` + num(x0) + " " + num(y) + "H" + num(x1) + `"/>`)
}

func (c *canvas) vline(class string, x, y0, y1 float64) {
	c.raw(`<path class="` + class + `" d="M` + num(x) + " " + num(y0) + "V" + num(y1) + `"/>`)
}

// rect draws a rectangle; tip, if any, is its tooltip.
func (c *canvas) rect(class string, x, y, w, h float64, tip string) {
	c.raw(`<rect class="` + class + `" x="` + num(x) + `" y="` + num(y) + `" width="` + num(max(w, 0)) + `" height="` + num(max(h, 0)) + `"`)
	if tip == "" {
		c.raw("/>")
		return
	}
	c.raw("><title>" + escape(tip) + "</title></rect>")
}

// markers draws one marker per point, all in one path for each of full and
// hollow ones.
func (c *canvas) markers(s Style, points []point, hollow []bool, r float64) {
	var full, outline strings.Builder
	var fullAt, outlineAt []point
	for i, p := range points {
		if s.hollow() || i < len(hollow) && hollow[i] {
			outline.WriteString(markerPath(s, p, r))
			outlineAt = append(outlineAt, p)
			continue
		}
		full.WriteString(markerPath(s, p, r))
		fullAt = append(fullAt, p)
	}
	if full.Len() > 0 {
		c.raw(`<path class="m" data-p="` + coords(fullAt) + `" d="` + full.String() + `"/>`)
	}
	if outline.Len() > 0 {
		c.raw(`<path class="o" data-p="` + coords(outlineAt) + `" d="` + outline.String() + `"/>`)
	}
}

func coords(ps []point) string {
	var b strings.Builder
	for i, p := range ps {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(num(p.x) + " " + num(p.y))
	}
	return b.String()
}

// markerPath is the outline of a style's marker of radius r at p.
func markerPath(s Style, p point, r float64) string {
	m := func(dx, dy float64) string { return num(p.x+dx*r) + " " + num(p.y+dy*r) }
	shape := int(max(s, 0)) % colours
	if s == Floor {
		shape = 7
	} else if s == Ceiling {
		shape = 8
	} else if s == Reference {
		shape = 7
	}
	switch shape {
	case 1: // square
		return "M" + m(-.85, -.85) + "H" + num(p.x+.85*r) + "V" + num(p.y+.85*r) + "H" + num(p.x-.85*r) + "z"
	case 2: // triangle
		return "M" + m(0, -1.1) + "L" + m(1.05, .8) + "L" + m(-1.05, .8) + "z"
	case 3: // diamond
		return "M" + m(0, -1.25) + "L" + m(1.1, 0) + "L" + m(0, 1.25) + "L" + m(-1.1, 0) + "z"
	case 4: // triangle down
		return "M" + m(0, 1.1) + "L" + m(1.05, -.8) + "L" + m(-1.05, -.8) + "z"
	case 5: // plus
		return "M" + m(-.35, -1.1) + "H" + num(p.x+.35*r) + "V" + num(p.y-.35*r) + "H" + num(p.x+1.1*r) + "V" + num(p.y+.35*r) + "H" + num(p.x+.35*r) +
			"V" + num(p.y+1.1*r) + "H" + num(p.x-.35*r) + "V" + num(p.y+.35*r) + "H" + num(p.x-1.1*r) + "V" + num(p.y-.35*r) + "H" + num(p.x-.35*r) + "z"
	case 6: // hexagon
		return "M" + m(-1.1, 0) + "L" + m(-.55, -1) + "L" + m(.55, -1) + "L" + m(1.1, 0) + "L" + m(.55, 1) + "L" + m(-.55, 1) + "z"
	case 7: // bar
		return "M" + m(-1.1, -.3) + "H" + num(p.x+1.1*r) + "V" + num(p.y+.3*r) + "H" + num(p.x-1.1*r) + "z"
	case 8: // small square on its corner
		return "M" + m(0, -.8) + "L" + m(.8, 0) + "L" + m(0, .8) + "L" + m(-.8, 0) + "z"
	}
	d := num(r)
	return "M" + num(p.x-r) + " " + num(p.y) + "a" + d + " " + d + " 0 1 0 " + num(2*r) + " 0a" + d + " " + d + " 0 1 0 " + num(-2*r) + " 0"
}

// num renders a coordinate with at most one decimal.
func num(v float64) string {
	s := strconv.FormatFloat(v, 'f', 1, 64)
	s = strings.TrimSuffix(s, ".0")
	if s == "-0" {
		return "0"
	}
	return s
}

// escape makes s fit for text and attribute values of SVG and HTML; control
// characters, which XML forbids, are dropped.
func escape(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
	return html.EscapeString(s)
}
