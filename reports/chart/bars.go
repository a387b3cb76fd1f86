package chart

import "github.com/raftbench/raftbench/reports/internal/quantity"

// Bar is one row of stacked parts.
type Bar struct {
	Name  string
	Style Style
	Parts []float64 // as many as Bars.Parts
	Text  string    // the total, at the right end
}

// Bars is horizontal stacked bars on one linear axis.
type Bars struct {
	Label string
	Parts []string // names of the parts, in the order in which they happen
	Kind  Kind
	Rows  []Bar
}

// partClasses are the colours of the parts; a sixth part begins anew.
const partClasses = 5

// SVG draws the figure width pixels wide.
func (b Bars) SVG(width int) string { return b.draw(width).svg("bars", b.Label) }

func (b Bars) draw(width int) *canvas {
	w := float64(width)
	narrow := w < Narrow
	c := newCanvas(w, 0)
	top := c.partLegend(b.Parts, w) + 8
	var rowNames, texts []string
	longest := 0.0
	for _, r := range b.Rows {
		rowNames, texts = append(rowNames, r.Name), append(texts, r.Text)
		longest = max(longest, total(r.Parts))
	}
	height, x0 := 26.0, min(widest(rowNames, false, false)+14, w*0.3)
	if narrow {
		height, x0 = 40, 1
	}
	x1 := max(w-widest(texts, false, true)-14, x0+20)
	x := Axis{Kind: b.Kind, Max: max(longest, 1)}.place(nil, x0, x1, max(int((x1-x0)/70), 2))
	bottom := top + float64(len(b.Rows))*height
	edge := x0 - 100
	for _, t := range x.ticks {
		px, _ := x.at(t)
		c.vline("g", px, top, bottom)
		label := b.Kind.label(t)
		half := textWidth(label, false, true) / 2
		if center := max(px, half); center-half > edge+8 && center+half <= w {
			c.text(center, bottom+16, middle, "mu sm", label)
			edge = center + half
		}
	}
	for i, r := range b.Rows {
		c.bar(&b, r, x, top+float64(i)*height, height, narrow)
	}
	c.h = bottom + 24
	return c
}

func total(parts []float64) float64 {
	sum := 0.0
	for _, v := range parts {
		if quantity.Usable(v) {
			sum += v
		}
	}
	return sum
}

func (c *canvas) partLegend(parts []string, width float64) float64 {
	px, py := 0.0, 0.0
	for i, name := range parts {
		w := 18 + textWidth(name, false, false) + 14
		if px > 0 && px+w-14 > width {
			px, py = 0, py+18
		}
		c.rect("f "+partClass(i), px, py+3, 11, 11, "")
		c.text(px+17, py+12, start, "", name)
		px += w
	}
	return py + 18
}

func partClass(i int) string { return "t" + num(float64(i%partClasses)) }

func (c *canvas) bar(b *Bars, r Bar, x scaled, top, height float64, narrow bool) {
	c.open(`<g class="row" data-b="` + num(float64(r.Style)) + `">`)
	y, h := top+5, height-10
	if narrow {
		c.text(1, top+13, start, "ha", fit(r.Name, c.w-2, false, false))
		y, h = top+19, 14
	} else {
		c.text(0, top+height/2+4, start, "", fit(r.Name, x.from-12, false, false))
	}
	at := 0.0
	for i, v := range r.Parts {
		if !quantity.Usable(v) || v == 0 {
			continue
		}
		a, _ := x.at(at)
		z, _ := x.at(at + v)
		name := ""
		if i < len(b.Parts) {
			name = b.Parts[i]
		}
		c.rect("f "+partClass(i), a, y, z-a-0.5, h, r.Name+", "+name+": "+b.Kind.value(v))
		at += v
	}
	px, _ := x.at(at)
	c.text(px+6, y+h/2+4, start, "mu sm ha", r.Text)
	c.close("</g>")
}
