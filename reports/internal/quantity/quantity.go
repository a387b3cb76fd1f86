// Package quantity renders measured figures for people: three significant
// digits, units that fit, thousands separated, one unit per table column. The
// package knows nothing of what is measured.
package quantity

import (
	"math"
	"strconv"
	"strings"
)

// Absent stands for a figure that was not measured.
const Absent = "–"

// Unit is the kind of quantity that a figure is.
type Unit int

const (
	Rate     Unit = iota // operations a second
	Duration             // nanoseconds
	Ratio                // a multiple of something
	Count                // per operation, per Save
	Bytes
)

// Usable reports whether v can be shown: measured figures are finite and not
// negative, anything else is treated as absent.
func Usable(v float64) bool { return v >= 0 && !math.IsInf(v, 0) }

// Format renders one figure with its unit, three significant digits.
func Format(v float64, u Unit) string {
	if !Usable(v) {
		return Absent
	}
	switch u {
	case Duration:
		return FormatDuration(v)
	case Rate:
		return FormatCount(v)
	case Ratio:
		return Significant(v) + "×"
	case Bytes:
		return FormatBytes(v)
	}
	return Significant(v)
}

// units are the units that a duration is shown in.
var units = []struct {
	name string
	ns   float64
}{{"ns", 1}, {"µs", 1e3}, {"ms", 1e6}, {"s", 1e9}}

// DurationUnit is the largest unit in which ns is at least 1.
func DurationUnit(ns float64) (name string, size float64) {
	u := units[0]
	for _, c := range units[1:] {
		// 999.5 would be rounded up to 1000 of the smaller unit.
		if ns >= 0.9995*c.ns {
			u = c
		}
	}
	return u.name, u.ns
}

// FormatDuration renders nanoseconds as "128 µs", "3.21 ms", "12.4 s".
func FormatDuration(ns float64) string {
	if ns == 0 {
		return "0 s"
	}
	name, size := DurationUnit(ns)
	return Significant(ns/size) + " " + name
}

// FormatBytes renders bytes in binary units: "64 MiB", "2.25 KiB".
func FormatBytes(v float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := 0
	for v >= 1023.5 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if v == math.Trunc(v) {
		return Group(strconv.FormatFloat(v, 'f', 0, 64)) + " " + units[i]
	}
	return Significant(v) + " " + units[i]
}

// FormatCount renders a number of things with thousands separated: "26,536".
// Numbers under 100 keep three significant digits.
func FormatCount(v float64) string {
	if v < 99.95 {
		return Significant(v)
	}
	if v >= 1e15 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return Group(strconv.FormatFloat(v, 'f', 0, 64))
}

// Significant renders v with three significant digits and thousands separated,
// without an exponent from 0.001 up to 10^15.
func Significant(v float64) string {
	switch {
	case !Usable(v):
		return Absent
	case v == 0:
		return "0"
	}
	if v >= 1e15 || v < 0.0005 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return Group(strconv.FormatFloat(v, 'f', decimals(v), 64))
}

// decimals is how many digits after the point give v three significant ones.
func decimals(v float64) int {
	if v <= 0 {
		return 0
	}
	return min(max(2-int(math.Floor(math.Log10(v*1.0005))), 0), 3)
}

// Group puts a comma between the thousands of a decimal number.
func Group(s string) string {
	whole, frac, _ := strings.Cut(s, ".")
	var b strings.Builder
	for i, r := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(r)
	}
	if frac != "" {
		b.WriteByte('.')
		b.WriteString(frac)
	}
	return b.String()
}

// Column is how the figures of one table column are rendered: in one unit and
// with the same number of decimals, so that they can be compared by eye, or
// each in its own unit where they lie too far apart for that.
type Column struct {
	Unit   Unit
	Size   float64 // divisor
	Name   string  // the common unit, for the head of the column; "" if each its own
	Digits int     // decimals
}

// ColumnFor chooses the form for a column that holds values.
func ColumnFor(u Unit, values []float64) Column {
	lo, hi := Extent(values)
	c := Column{Unit: u, Size: 1}
	if hi == 0 {
		return c
	}
	if u == Duration || u == Bytes {
		if hi/lo > 2e4 {
			return c // 1 µs beside 10 s: no common unit shows both
		}
		middle := math.Sqrt(lo * hi)
		c.Name, c.Size = "B", 1
		if u == Duration {
			c.Name, c.Size = DurationUnit(middle)
		} else {
			for _, n := range []string{"KiB", "MiB", "GiB", "TiB"} {
				if middle >= 1024*c.Size {
					c.Name, c.Size = n, 1024*c.Size
				}
			}
		}
	}
	return c.WithDecimals(values)
}

// WithDecimals is the column with the number of decimals that values need.
func (c Column) WithDecimals(values []float64) Column {
	lo, hi := Extent(values)
	if hi == 0 {
		return c
	}
	lo, hi = lo/c.Size, hi/c.Size
	c.Digits = decimals(lo)
	if hi >= 10*lo && c.Digits > 1 {
		c.Digits-- // two Significant digits for the smallest, three or more for the rest
	}
	if hi >= 1000 {
		c.Digits = min(c.Digits, 1)
	}
	switch {
	case c.Unit == Rate && hi >= 100:
		c.Digits = 0
	case c.Unit == Ratio && hi >= 0.1:
		c.Digits = min(c.Digits, 2)
	}
	return c
}

// Extent is the smallest and largest positive figure; 0, 0 where there is none.
func Extent(values []float64) (lo, hi float64) {
	for _, v := range values {
		if !Usable(v) || v == 0 {
			continue
		}
		if hi == 0 || v < lo {
			lo = v
		}
		hi = max(hi, v)
	}
	return lo, hi
}

// Format renders v for the column.
func (c Column) Format(v float64) string {
	switch {
	case !Usable(v):
		return Absent
	case v == 0:
		return "0"
	case c.Name == "" && (c.Unit == Duration || c.Unit == Bytes), v/c.Size >= 1e12:
		return Format(v, c.Unit)
	case v/c.Size < math.Pow(10, -float64(c.Digits))/2 && c.Name != "":
		return Format(v, c.Unit) // would be rounded to 0: in a unit of its own
	case v/c.Size < math.Pow(10, -float64(c.Digits))/2:
		return Significant(v / c.Size)
	}
	return Group(strconv.FormatFloat(v/c.Size, 'f', c.Digits, 64))
}
