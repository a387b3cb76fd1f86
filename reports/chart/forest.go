package chart

import "math"

// Effect is one row of a forest plot: a ratio to the baseline.
type Effect struct {
	Name          string
	Style         Style
	Ratio, Lo, Hi float64 // Lo and Hi are 0 where there is no interval
	Text          string  // the same in words, at the right
	Base          bool    // the baseline itself
}

// Forest shows ratios with their intervals on a log axis around 1.
type Forest struct {
	Label string
	Left  string  // what lies left of 1, e.g. "← slower"
	Right string  // what lies right of 1
	Noise float64 // half width of the shaded band, 0.03 for ±3 %
	Rows  []Effect
}

// SVG draws the figure width pixels wide.
func (f Forest) SVG(width int) string { return f.draw(width).svg("forest", f.Label) }

func (f Forest) draw(width int) *canvas {
	w := float64(width)
	c := newCanvas(w, 0)
	narrow := w < Narrow
	var rowNames, texts []string
	values := []float64{1, 1 - 1.5*f.Noise, 1 + 1.5*f.Noise}
	for _, r := range f.Rows {
		rowNames, texts = append(rowNames, r.Name), append(texts, r.Text)
		for _, v := range []float64{r.Ratio, r.Lo, r.Hi} {
			if v > 0 {
				values = append(values, v)
			}
		}
	}
	height, x0, x1 := 26.0, 12.0, w-12
	nameWidth := min(widest(rowNames, false, false)+26, w*0.3)
	textRoom := min(widest(texts, false, false), w*0.32)
	if narrow {
		height = 40
	} else {
		x0, x1 = nameWidth, w-textRoom-20
	}
	top := 24.0
	bottom := top + float64(len(f.Rows))*height
	axis := Axis{Kind: Ratio, Log: true}
	x := axis.place(values, x0, x1, max(int((x1-x0)/58), 3))
	c.open(`<g class="p" data-x="` + x.data() + `">`)
	c.forestAxis(&f, x, top, bottom)
	for i, r := range f.Rows {
		c.effect(r, x, top+float64(i)*height, height, narrow, textRoom)
	}
	c.close("</g>")
	c.h = bottom + 24
	return c
}

func (c *canvas) forestAxis(f *Forest, x scaled, top, bottom float64) {
	a, _ := x.at(1 - f.Noise)
	b, _ := x.at(1 + f.Noise)
	c.rect("sh", a, top-2, b-a, bottom-top+2, "")
	one, _ := x.at(1)
	edge := math.Inf(-1)
	for _, t := range x.ticks {
		px, ok := x.at(t)
		if !ok {
			continue
		}
		c.vline("g", px, top-2, bottom)
		label := Ratio.label(t)
		if half := textWidth(label, false, true) / 2; px-half > edge+8 && px+half <= c.w {
			c.text(px, bottom+16, middle, "mu sm", label)
			edge = px + half
		}
	}
	c.vline("ax", one, top-2, bottom)
	// Where 1 is close to an edge, the name on that side moves over the line.
	left, right := fit(f.Left, c.w*0.45, false, true), fit(f.Right, c.w*0.45, false, true)
	leftAt := max(one-8, textWidth(left, false, true))
	rightAt := min(max(one, leftAt)+8, c.w-textWidth(right, false, true))
	c.text(min(leftAt, rightAt-8), 12, end, "mu sm", left)
	c.text(rightAt, 12, start, "mu sm", right)
}

// effect draws one row of a forest plot.
func (c *canvas) effect(r Effect, x scaled, top, height float64, narrow bool, textRoom float64) {
	c.open(`<g class="row ` + r.Style.class() + `" data-b="` + num(float64(r.Style)) + `">`)
	mid := top + height/2
	if narrow {
		text := fit(r.Text, c.w*0.6, false, true)
		c.rect("pa", 0, top, c.w, narrowText, "") // no line runs through words
		c.text(c.w-2, top+13, end, "mu sm ha", text)
		c.text(2, top+13, start, "ha", fit(r.Name, c.w-textWidth(text, false, true)-14, false, false))
		mid = top + 27
	} else {
		c.text(0, mid+4, start, "", fit(r.Name, x.from-12, false, false))
		c.text(c.w-4, mid+4, end, "mu", fit(r.Text, textRoom, false, false))
	}
	if lo, ok := x.at(r.Lo); ok && r.Hi > 0 {
		hi, _ := x.at(r.Hi)
		c.hline("l", lo, hi, mid)
		c.raw(`<path class="l" d="M` + num(lo) + " " + num(mid-4) + "V" + num(mid+4) + "M" + num(hi) + " " + num(mid-4) + "V" + num(mid+4) + `"/>`)
	}
	if px, ok := x.at(r.Ratio); ok {
		c.markers(r.Style, []point{{px, mid}}, []bool{r.Base}, 4.5)
	}
	c.close("</g>")
}
