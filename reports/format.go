package reports

import (
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/raftbench/raftbench/reports/internal/quantity"
)

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
	return quantity.Group(strconv.Itoa(n)) + " " + one + "s"
}

// pluralOf is plural for words that take another ending: "1 search", "2 searches".
func pluralOf(n int, one, many string) string {
	return quantity.Group(strconv.Itoa(n)) + " " + verbN(n, one, many)
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
		return quantity.Absent
	}
	return t.UTC().Format("2006-01-02 15:04 UTC")
}
