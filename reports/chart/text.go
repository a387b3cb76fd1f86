package chart

import (
	"strings"
	"unicode/utf8"
)

// textWidth estimates the width of s in CSS pixels at 12 px (11 px if small). It
// follows DejaVu Sans, the widest of the usual sans-serif fonts, so that an
// estimate is hardly ever too small.
func textWidth(s string, bold, small bool) float64 {
	w := 0.0
	for _, r := range s {
		w += runeWidth(r)
	}
	size := 12.0
	if small {
		size = 11
	}
	if bold {
		size *= 1.1
	}
	return w * size
}

// runeWidth is the advance of r in ems.
func runeWidth(r rune) float64 {
	switch {
	case strings.ContainsRune("ijl'|", r):
		return 0.3
	case strings.ContainsRune(" .,:;!-()[]ftr/·", r):
		return 0.42
	case r == 'm' || r == 'M' || r == 'W' || r == '%' || r == '…' || r == '@':
		return 1
	case r == 'w' || r == '×' || r == '=' || r == '+' || r == '<' || r == '>' || r == '±' || r == '÷':
		return 0.84
	case r >= 'A' && r <= 'Z':
		return 0.76
	case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
		return 0.64
	case r > 0x2e80: // East Asian, emoji
		return 1.2
	}
	return 0.7
}

// fit cuts s, with an ellipsis, so that it takes at most width.
func fit(s string, width float64, bold, small bool) string {
	if textWidth(s, bold, small) <= width {
		return s
	}
	for len(s) > 0 {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
		if textWidth(s+"…", bold, small) <= width {
			return s + "…"
		}
	}
	return ""
}

// widest is the largest width of some text.
func widest(texts []string, bold, small bool) float64 {
	w := 0.0
	for _, s := range texts {
		w = max(w, textWidth(s, bold, small))
	}
	return w
}
