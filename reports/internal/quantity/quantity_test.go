package quantity

import (
	"math"
	"testing"
)

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		v    float64
		u    Unit
		want string
	}{
		{0, Duration, "0 s"}, {1, Duration, "1.00 ns"}, {999.4, Duration, "999 ns"}, {999.6, Duration, "1.00 µs"}, {128_400, Duration, "128 µs"},
		{3_214_000, Duration, "3.21 ms"}, {12.44e9, Duration, "12.4 s"}, {math.MaxInt64, Duration, "9,223,372,037 s"},
		{26536.4, Rate, "26,536"}, {99.94, Rate, "99.9"}, {99.96, Rate, "100"}, {0.5, Rate, "0.500"}, {1e18, Rate, "1e+18"},
		{1.0749, Ratio, "1.07×"}, {0.0001, Ratio, "0.0001×"}, {12.345, Count, "12.3"}, {9.999, Count, "10.0"}, {1000.4, Count, "1,000"},
		{0, Bytes, "0 B"}, {1023, Bytes, "1,023 B"}, {1024, Bytes, "1 KiB"}, {2300, Bytes, "2.25 KiB"}, {64 << 20, Bytes, "64 MiB"},
		{math.NaN(), Rate, Absent}, {math.Inf(1), Duration, Absent}, {-1, Bytes, Absent},
	} {
		if got := Format(c.v, c.u); got != c.want {
			t.Errorf("Format(%v, %v) = %q, want %q", c.v, c.u, got, c.want)
		}
	}
}

// TestColumn holds that figures of one column can be compared by eye.
func TestColumn(t *testing.T) {
	for _, c := range []struct {
		name   string
		u      Unit
		values []float64
		unit   string
		want   []string
	}{
		{"one unit, one number of decimals", Duration, []float64{139e3, 305e3, 1.15e6}, "µs", []string{"139", "305", "1,150"}},
		{"milliseconds", Duration, []float64{2.43e6, 6.69e6, 25.37e6}, "ms", []string{"2.4", "6.7", "25.4"}},
		{"too far apart for one unit", Duration, []float64{1e3, 10e9}, "", []string{"1.00 µs", "10.0 s"}},
		{"whole operations a second", Rate, []float64{140.2, 121110.3}, "", []string{"140", "121,110"}},
		{"a ratio has two decimals at most", Ratio, []float64{0.998, 2.328}, "", []string{"1.00", "2.33"}},
		{"absent and zero", Count, []float64{math.NaN(), 0, 0.25}, "", []string{Absent, "0", "0.250"}},
		{"nothing", Duration, nil, "", nil},
		{"binary sizes", Bytes, []float64{64 << 20, 96 << 20}, "MiB", []string{"64.0", "96.0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			form := ColumnFor(c.u, c.values)
			if form.Name != c.unit {
				t.Errorf("unit %q, want %q", form.Name, c.unit)
			}
			for i, v := range c.values {
				if got := form.Format(v); got != c.want[i] {
					t.Errorf("%v is %q, want %q", v, got, c.want[i])
				}
			}
		})
	}
}

func TestGroup(t *testing.T) {
	for in, want := range map[string]string{"1": "1", "123": "123", "1234": "1,234", "1234567.89": "1,234,567.89"} {
		if got := Group(in); got != want {
			t.Errorf("Group(%q) = %q, want %q", in, got, want)
		}
	}
}
