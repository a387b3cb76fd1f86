package reports

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// absent stands for a figure that was not measured.
const absent = "–"

// unit is the kind of quantity that a figure is.
type unit int

const (
	unitRate     unit = iota // operations a second
	unitDuration             // nanoseconds
	unitRatio                // a multiple of something
	unitCount                // per operation, per Save
	unitBytes
)

// usable reports whether v can be shown: measured figures are finite and not
// negative, anything else is treated as absent.
func usable(v float64) bool { return v >= 0 && !math.IsInf(v, 0) }

// formatValue renders one figure with its unit, three significant digits.
func formatValue(v float64, u unit) string {
	if !usable(v) {
		return absent
	}
	switch u {
	case unitDuration:
		return formatDuration(v)
	case unitRate:
		return formatCount(v)
	case unitRatio:
		return significant(v) + "×"
	case unitBytes:
		return formatBytes(v)
	}
	return significant(v)
}

// durationUnits are the units that a duration is shown in.
var durationUnits = []struct {
	name string
	ns   float64
}{{"ns", 1}, {"µs", 1e3}, {"ms", 1e6}, {"s", 1e9}}

// durationUnit is the largest unit in which ns is at least 1.
func durationUnit(ns float64) (name string, size float64) {
	u := durationUnits[0]
	for _, c := range durationUnits[1:] {
		// 999.5 would be rounded up to 1000 of the smaller unit.
		if ns >= 0.9995*c.ns {
			u = c
		}
	}
	return u.name, u.ns
}

// formatDuration renders nanoseconds as "128 µs", "3.21 ms", "12.4 s".
func formatDuration(ns float64) string {
	if ns == 0 {
		return "0 s"
	}
	name, size := durationUnit(ns)
	return significant(ns/size) + " " + name
}

// formatBytes renders bytes in binary units: "64 MiB", "2.25 KiB".
func formatBytes(v float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := 0
	for v >= 1023.5 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if v == math.Trunc(v) {
		return group(strconv.FormatFloat(v, 'f', 0, 64)) + " " + units[i]
	}
	return significant(v) + " " + units[i]
}

// formatCount renders a number of things with thousands separated: "26,536".
// Numbers under 100 keep three significant digits.
func formatCount(v float64) string {
	if v < 99.95 {
		return significant(v)
	}
	if v >= 1e15 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return group(strconv.FormatFloat(v, 'f', 0, 64))
}

// significant renders v with three significant digits and thousands separated,
// without an exponent from 0.001 up to 10^15.
func significant(v float64) string {
	if v == 0 {
		return "0"
	}
	if v >= 1e15 || v < 0.0005 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return group(strconv.FormatFloat(v, 'f', decimals(v), 64))
}

// decimals is how many digits after the point give v three significant ones.
func decimals(v float64) int {
	if v <= 0 {
		return 0
	}
	return min(max(2-int(math.Floor(math.Log10(v*1.0005))), 0), 3)
}

// group puts a comma between the thousands of a decimal number.
func group(s string) string {
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

// column is how the figures of one table column are rendered: in one unit and
// with the same number of decimals, so that they can be compared by eye, or
// each in its own unit where they lie too far apart for that.
type column struct {
	unit  unit
	size  float64 // divisor
	name  string  // the common unit, for the head of the column; "" if each its own
	digit int     // decimals
}

// columnFor chooses the form for a column that holds values.
func columnFor(u unit, values []float64) column {
	lo, hi := extent(values)
	c := column{unit: u, size: 1}
	if hi == 0 {
		return c
	}
	if u == unitDuration || u == unitBytes {
		if hi/lo > 2e4 {
			return c // 1 µs beside 10 s: no common unit shows both
		}
		middle := math.Sqrt(lo * hi)
		c.name, c.size = "B", 1
		if u == unitDuration {
			c.name, c.size = durationUnit(middle)
		} else {
			for _, n := range []string{"KiB", "MiB", "GiB", "TiB"} {
				if middle >= 1024*c.size {
					c.name, c.size = n, 1024*c.size
				}
			}
		}
	}
	return c.decimalsFor(values)
}

// decimalsFor is the column with the number of decimals that values need.
func (c column) decimalsFor(values []float64) column {
	lo, hi := extent(values)
	if hi == 0 {
		return c
	}
	lo, hi = lo/c.size, hi/c.size
	c.digit = decimals(lo)
	if hi >= 10*lo && c.digit > 1 {
		c.digit-- // two significant digits for the smallest, three or more for the rest
	}
	if hi >= 1000 {
		c.digit = min(c.digit, 1)
	}
	if c.unit == unitRate && hi >= 100 {
		c.digit = 0
	}
	return c
}

// extent is the smallest and largest positive figure; 0, 0 where there is none.
func extent(values []float64) (lo, hi float64) {
	for _, v := range values {
		if !usable(v) || v == 0 {
			continue
		}
		if hi == 0 || v < lo {
			lo = v
		}
		hi = max(hi, v)
	}
	return lo, hi
}

// format renders v for the column.
func (c column) format(v float64) string {
	switch {
	case !usable(v):
		return absent
	case v == 0:
		return "0"
	case c.name == "" && (c.unit == unitDuration || c.unit == unitBytes), v/c.size >= 1e12:
		return formatValue(v, c.unit)
	case v/c.size < math.Pow(10, -float64(c.digit))/2:
		return significant(v / c.size)
	}
	return group(strconv.FormatFloat(v/c.size, 'f', c.digit, 64))
}

// clean makes a string from a result safe for a terminal and for one line:
// control and format characters (escape sequences, direction overrides) are
// replaced, and what is longer than any sane name is cut.
func clean(s string) string {
	const longest = 4096
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar {
			return '�'
		}
		return r
	}, s)
}

// shorten cuts s to n runes, the last of them an ellipsis.
func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	if n < 1 {
		return ""
	}
	return string(r[:n-1]) + "…"
}

// plural is "1 run", "2 runs".
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return group(strconv.Itoa(n)) + " " + one + "s"
}

// list joins names as prose does: "a", "a and b", "a, b and c".
func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// stamp is a time as the reports show it.
func stamp(t time.Time) string {
	if t.IsZero() {
		return absent
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}
