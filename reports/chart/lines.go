package chart

import "cmp"

// Narrow is the width under which figures are laid out for a phone: names above
// what they name, instead of beside it.
const Narrow = 560

// narrowText is the height of the line of text above a row on a narrow page.
const narrowText = 18

// Lines is one panel under a legend.
type Lines struct {
	Label string // for screen readers
	Panel Panel
	// Height of the plot in pixels; 0 is a good one for the width.
	Height float64
}

// SVG draws the figure width pixels wide.
func (l Lines) SVG(width int) string { return l.draw(width).svg("lines", l.Label) }

func (l Lines) draw(width int) *canvas {
	w := float64(width)
	height := cmp.Or(l.Height, min(w*0.42, 380))
	if w < Narrow {
		height = cmp.Or(l.Height, w*0.75)
	}
	c := newCanvas(w, 0)
	top := 6.0
	if len(l.Panel.Series) > 1 {
		top = c.legend(l.Panel.Series, 0, 0, w) + 10
	}
	if l.Panel.Y.Title != "" {
		c.text(0, top+10, start, "mu sm", fit(l.Panel.Y.Title, w, false, true))
		top += 22
	}
	xs, ys := l.Panel.values()
	y := l.Panel.Y.place(ys, top+height, top, int(height/34))
	f := frame{x0: widest(y.labels(), false, true) + 8, y0: top, x1: w - 12, y1: top + height, xLabels: true, yLabels: true}
	x := l.Panel.X.place(xs, f.x0, f.x1, int((f.x1-f.x0)/70))
	c.panel(&l.Panel, f, x, y)
	c.h = f.y1 + 22
	if l.Panel.X.Title != "" {
		c.text(f.x1, f.y1+32, end, "mu sm", fit(l.Panel.X.Title, f.x1, false, true))
		c.h += 16
	}
	return c
}

// legend writes swatches and names in rows from (x, y) within width, and
// returns the y below it.
func (c *canvas) legend(series []Series, x, y, width float64) float64 {
	const swatch, row = 30.0, 18.0
	px, py := x, y
	for i := range series {
		s := &series[i]
		name := fit(s.Name, width-swatch, false, false)
		w := swatch + textWidth(name, false, false) + 14
		if px > x && px+w-14 > x+width {
			px, py = x, py+row
		}
		c.open(`<g class="` + s.Style.class() + `" data-b="` + num(float64(s.Style)) + `">`)
		if !s.NoLine || len(s.LineX) > 1 {
			c.hline("l", px+1, px+23, py+8)
		}
		c.markers(s.Style, []point{{px + 12, py + 8}}, nil, 3.6)
		c.text(px+swatch, py+12, start, "", name)
		c.close("</g>")
		px += w
	}
	return py + row
}
