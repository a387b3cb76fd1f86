package chart

import "slices"

// Row is one line of small multiples: panels side by side, under one name.
type Row struct {
	Name   string
	Style  Style
	Panels []Panel
	// Own gives the row scales of its own; others share theirs by column.
	Own bool
}

// Grid is small multiples: every column shares its axes over all rows, so that
// heights can be compared between them.
type Grid struct {
	Label string
	Rows  []Row
	// Legend names the series, where panels hold several.
	Legend []Series
	// Height of each plot in pixels.
	Height float64
	// Compact leaves the ticks of the x axis to the last row, and on a wide page
	// puts the names of the rows beside them.
	Compact bool
	// SharedY gives the panels of a row one y axis, where it is logarithmic.
	SharedY bool
	// Across is how many panels of a row stand side by side on a wide page
	// and on a narrow one; 0 is all and 1.
	Across [2]int

	rooms []float64 // labelRoom of each column, while it is drawn
}

// SVG draws the figure width pixels wide.
func (g Grid) SVG(width int) string { return g.draw(width).svg("grid", g.Label) }

func (g Grid) draw(width int) *canvas {
	w := float64(width)
	c := newCanvas(w, 0)
	y := 0.0
	if len(g.Legend) > 0 {
		y = c.legend(g.Legend, 0, 0, w) + 10
	}
	across := g.Across[0]
	if w < Narrow {
		across = max(g.Across[1], 1)
	}
	for i := range g.Rows {
		for len(g.rooms) < len(g.Rows[i].Panels) {
			g.rooms = append(g.rooms, g.labelRoom(len(g.rooms)))
		}
	}
	for i := range g.Rows {
		y = c.gridRow(&g, i, across, y)
	}
	c.h = y
	return c
}

// nameRoom is the width that the names of rows take on their left; 0 where they
// stand above.
func (g *Grid) nameRoom(width float64) float64 {
	if !g.Compact || width < Narrow {
		return 0
	}
	var all []string
	for _, r := range g.Rows {
		all = append(all, r.Name)
	}
	return min(widest(all, true, false)+30, width*0.3)
}

// gridRow draws one row of the grid from y and returns the y below it.
func (c *canvas) gridRow(g *Grid, i, across int, y float64) float64 {
	r := &g.Rows[i]
	n := len(r.Panels)
	if across <= 0 || across > n {
		across = max(n, 1)
	}
	left := g.nameRoom(c.w)
	c.open(`<g class="row ` + r.Style.class() + `" data-b="` + num(float64(r.Style)) + `">`)
	switch {
	case r.Name == "":
	case left > 0:
		mid := y + g.Height/2
		c.markers(r.Style, []point{{6, mid}}, nil, 4)
		c.text(16, mid+4, start, "bo", fit(r.Name, left-20, true, false))
	default:
		c.markers(r.Style, []point{{6, y + 9}}, nil, 4)
		c.text(16, y+13, start, "bo", fit(r.Name, c.w-16, true, false))
		y += 20
	}
	const gutter = 26.0
	slot := (c.w - left - gutter*float64(across-1)) / float64(across)
	for k := 0; k < n; k += across {
		bottom := y
		for j := k; j < min(k+across, n); j++ {
			bottom = max(bottom, c.gridPanel(g, i, j, left+float64(j-k)*(slot+gutter), y, slot))
		}
		y = bottom
		if k+across < n {
			y += 12
		}
	}
	c.close("</g>")
	if g.Compact {
		return y + 16 // the lowest tick of a row and the highest of the next
	}
	return y + 10
}

// gridPanel draws panel j of row i in a box and returns the y below it.
func (c *canvas) gridPanel(g *Grid, i, j int, x0, y0, width float64) float64 {
	p := &g.Rows[i].Panels[j]
	top := y0
	if p.Title != "" {
		c.text(x0, y0+11, start, "mu sm", fit(p.Title, width, false, true))
		top += 22
	}
	f := frame{y0: top, y1: top + g.Height, xLabels: !g.Compact || i == len(g.Rows)-1, yLabels: true}
	xs, _ := g.columnValues(i, j)
	y := g.yAxis(i, j, f.y0)
	f.x0 = x0 + g.rooms[j] + 8
	f.x1 = x0 + width - 8
	x := p.X.place(xs, f.x0, f.x1, max(int((f.x1-f.x0)/50), 2))
	c.panel(p, f, x, y)
	bottom := f.y1
	if f.xLabels {
		bottom += 20
	}
	if p.X.Title != "" {
		c.text(f.x1, f.y1+30, end, "mu sm", fit(p.X.Title, f.x1-f.x0, false, true))
		bottom += 14
	}
	return bottom
}

// yAxis is the y axis of panel j of row i, whose plot begins at top.
func (g *Grid) yAxis(i, j int, top float64) scaled {
	p := &g.Rows[i].Panels[j]
	_, ys := g.columnValues(i, j)
	if g.SharedY && p.Y.Log {
		for k := range g.Rows[i].Panels {
			_, more := g.columnValues(i, k)
			ys = append(ys, more...)
		}
	}
	return p.Y.place(ys, top+g.Height, top, max(int(g.Height/24), 3))
}

// labelRoom is the width of the y axis' labels in column j: that of the widest, so
// that plots in one column stand below each other also where a row has scales of its
// own.
func (g *Grid) labelRoom(j int) float64 {
	room, shared := 0.0, false
	for i, r := range g.Rows {
		if j >= len(r.Panels) || !r.Own && shared {
			continue
		}
		shared = shared || !r.Own
		room = max(room, widest(g.yAxis(i, j, 0).labels(), false, true))
	}
	return room
}

// columnValues are the values that the axes of panel j of row i must cover:
// those of the whole column, or of the row's panel alone.
func (g *Grid) columnValues(i, j int) (xs, ys []float64) {
	for k, r := range g.Rows {
		if j >= len(r.Panels) || k != i && (r.Own || g.Rows[i].Own) {
			continue
		}
		x, y := r.Panels[j].values()
		xs, ys = slices.Concat(xs, x), slices.Concat(ys, y)
	}
	return xs, ys
}
