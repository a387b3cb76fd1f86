package chart

// Cloud is one row of a strip: values that belong together.
type Cloud struct {
	Name   string
	Style  Style
	Values []float64
	Text   string // what they come to, at the right
}

// Strip shows every value as a dot, one row for each name, on one log axis.
type Strip struct {
	Label string
	Kind  Kind
	Rows  []Cloud
}

// SVG draws the figure width pixels wide.
func (s Strip) SVG(width int) string { return s.draw(width).svg("strip", s.Label) }

func (s Strip) draw(width int) *canvas {
	w := float64(width)
	c := newCanvas(w, 0)
	narrow := w < Narrow
	var rowNames, texts []string
	var values []float64
	for _, r := range s.Rows {
		rowNames, texts, values = append(rowNames, r.Name), append(texts, r.Text), append(values, r.Values...)
	}
	height, x0, x1, textRoom := 24.0, 10.0, w-10, 0.0
	if narrow {
		height = 38
	} else {
		textRoom = min(widest(texts, false, false), w*0.2)
		x0, x1 = min(widest(rowNames, false, false)+16, w*0.3), w-textRoom-16
	}
	bottom := 4 + float64(len(s.Rows))*height
	x := Axis{Kind: s.Kind, Log: true}.place(values, x0, x1, max(int((x1-x0)/70), 3))
	c.open(`<g class="p" data-x="` + x.data() + `">`)
	edge := -1.0
	for _, t := range x.ticks {
		px, _ := x.at(t)
		c.vline("g", px, 2, bottom)
		label := s.Kind.label(t)
		if half := textWidth(label, false, true) / 2; px-half > edge+8 && px+half <= w {
			c.text(px, bottom+16, middle, "mu sm", label)
			edge = px + half
		}
	}
	for i, r := range s.Rows {
		c.cloud(r, x, 4+float64(i)*height, height, textRoom)
	}
	c.close("</g>")
	c.h = bottom + 24
	return c
}

// cloud draws one row of a strip; without textRoom the names stand above.
func (c *canvas) cloud(r Cloud, x scaled, top, height, textRoom float64) {
	c.open(`<g class="row ` + r.Style.class() + `" data-b="` + num(float64(r.Style)) + `">`)
	mid := top + height/2
	if textRoom == 0 {
		text := fit(r.Text, c.w*0.5, false, true)
		c.rect("pa", 0, top, c.w, narrowText, "") // no line runs through words
		c.text(c.w-2, top+12, end, "mu sm ha", text)
		c.text(2, top+12, start, "ha", fit(r.Name, c.w-textWidth(text, false, true)-14, false, false))
		mid = top + 26
	} else {
		c.text(0, mid+4, start, "", fit(r.Name, x.from-10, false, false))
		c.text(x.to+14, mid+4, start, "mu", fit(r.Text, textRoom, false, false))
	}
	var ps []point
	for _, v := range r.Values {
		if px, ok := x.at(v); ok {
			ps = append(ps, point{px, mid})
		}
	}
	c.markers(r.Style, ps, nil, 3.6)
	c.close("</g>")
}
