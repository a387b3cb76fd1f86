package backends

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
)

// Param documents one setting of a backend.
type Param struct {
	Name    string
	Default string
	Meaning string
}

// ParamError says which setting of which backend is wrong, and what is known.
type ParamError struct {
	Backend string
	Reason  string
}

func (e *ParamError) Error() string { return e.Backend + ": " + e.Reason }

// ParseName splits "bbolt[freelist=array,nofreelistsync=true]" into the name of
// the backend and its settings (nil where there are none).
func ParseName(s string) (name string, params map[string]string, err error) {
	s = strings.TrimSpace(s)
	name, rest, found := strings.Cut(s, "[")
	if name == "" {
		return "", nil, fmt.Errorf("%q: empty backend name", s)
	}
	if !found {
		if strings.ContainsAny(s, "],= ") {
			return "", nil, fmt.Errorf("%q: want name or name[key=value,…]", s)
		}
		return name, nil, nil
	}
	body, ok := strings.CutSuffix(rest, "]")
	if !ok || strings.ContainsAny(body, "[]") {
		return "", nil, fmt.Errorf("%q: want name or name[key=value,…]", s)
	}
	params = map[string]string{}
	for kv := range strings.SplitSeq(body, ",") {
		k, v, ok := strings.Cut(strings.TrimSpace(kv), "=")
		if !ok || k == "" || v == "" {
			return "", nil, fmt.Errorf("%q: %q is not key=value", s, kv)
		}
		if _, twice := params[k]; twice {
			return "", nil, fmt.Errorf("%q: %s is given twice", s, k)
		}
		params[k] = v
	}
	return name, params, nil
}

// SplitNames cuts a list of backends at the commas outside brackets.
func SplitNames(list string) []string {
	var out []string
	depth, start := 0, 0
	for i, r := range list {
		switch r {
		case '[':
			depth++
		case ']':
			depth--
		case ',':
			if depth == 0 {
				out = append(out, strings.TrimSpace(list[start:i]))
				start = i + 1
			}
		}
	}
	if rest := strings.TrimSpace(list[start:]); rest != "" {
		out = append(out, rest)
	}
	return out
}

// FormatName is the inverse of [ParseName], with keys in order.
func FormatName(name string, params map[string]string) string {
	if len(params) == 0 {
		return name
	}
	kv := make([]string, 0, len(params))
	for _, k := range slices.Sorted(maps.Keys(params)) {
		kv = append(kv, k+"="+params[k])
	}
	return name + "[" + strings.Join(kv, ",") + "]"
}

// Settings reads the values of one Open against the documented parameters of a
// backend, and gathers what is wrong with them, so that a backend asks for all
// it needs and checks once:
//
//	p := backends.NewSettings("bbolt", params, opts.Params)
//	noSync := p.Bool("nofreelistsync")
//	if err := p.Err(); err != nil { … }
type Settings struct {
	backend string
	known   []Param
	given   map[string]string
	errs    []error
}

// NewSettings checks that every given key is known.
func NewSettings(backend string, known []Param, given map[string]string) *Settings {
	s := &Settings{backend: backend, known: known, given: given}
	for _, k := range slices.Sorted(maps.Keys(given)) {
		if !slices.ContainsFunc(known, func(p Param) bool { return p.Name == k }) {
			s.fail("unknown parameter %q; known: %s", k, s.names())
		}
	}
	return s
}

func (s *Settings) names() string {
	if len(s.known) == 0 {
		return "none"
	}
	names := make([]string, len(s.known))
	for i, p := range s.known {
		names[i] = p.Name
	}
	return strings.Join(names, ", ")
}

func (s *Settings) fail(format string, args ...any) {
	s.errs = append(s.errs, &ParamError{Backend: s.backend, Reason: fmt.Sprintf(format, args...)})
}

// String is the given value of a parameter, or its documented default.
func (s *Settings) String(name string) string {
	if v, ok := s.given[name]; ok {
		return v
	}
	for _, p := range s.known {
		if p.Name == name {
			return p.Default
		}
	}
	panic("backends: " + s.backend + " asks for a parameter that it does not document: " + name)
}

// Choice is a parameter that must be one of values.
func (s *Settings) Choice(name string, values ...string) string {
	v := s.String(name)
	if !slices.Contains(values, v) {
		s.fail("%s=%q: want one of %s", name, v, strings.Join(values, ", "))
	}
	return v
}

// Bool is a parameter that is true or false (also on, off).
func (s *Settings) Bool(name string) bool {
	switch v := s.String(name); v {
	case "on":
		return true
	case "off":
		return false
	default:
		b, err := strconv.ParseBool(v)
		if err != nil {
			s.fail("%s=%q: want true or false", name, v)
		}
		return b
	}
}

// Bytes is a size such as 64MiB, within [min, max].
func (s *Settings) Bytes(name string, min, max int64) int64 {
	v := s.String(name)
	n, err := humanize.ParseBytes(v)
	if err != nil || int64(n) < min || n > uint64(max) {
		s.fail("%s=%q: want a size from %s to %s", name, v, humanize.IBytes(uint64(min)), humanize.IBytes(uint64(max)))
		return min
	}
	return int64(n)
}

// Int is a whole number within [min, max].
func (s *Settings) Int(name string, min, max int) int {
	v := s.String(name)
	n, err := strconv.Atoi(v)
	if err != nil || n < min || n > max {
		s.fail("%s=%q: want a whole number from %d to %d", name, v, min, max)
		return min
	}
	return n
}

// Err is everything that was wrong, nil if nothing was.
func (s *Settings) Err() error { return errors.Join(s.errs...) }
