package load

import (
	"math/bits"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/raftbench/raftbench/bench/result"
)

// Histogram range: from 1 ns, since a Save of mem takes less than a microsecond, up to
// two minutes, well past the longest timeout, to three significant digits.
const (
	histMin    = 1
	histMax    = int64(2 * time.Minute)
	histDigits = 3
)

// NewHistogram returns an empty histogram of nanoseconds in raftbench's range.
func NewHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(histMin, histMax, histDigits)
}

// Record adds one duration; what is out of range counts at its edge.
func Record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(int64(d), histMin), histMax))
}

// Summary turns a histogram into a result. keep stores the whole histogram too.
func Summary(h *hdrhistogram.Histogram, keep bool) result.Latency {
	if h == nil || h.TotalCount() == 0 {
		return result.Latency{}
	}
	l := result.Latency{
		Count: h.TotalCount(),
		Mean:  time.Duration(h.Mean()),
		P50:   time.Duration(h.ValueAtQuantile(50)),
		P90:   time.Duration(h.ValueAtQuantile(90)),
		P99:   time.Duration(h.ValueAtQuantile(99)),
		P999:  time.Duration(h.ValueAtQuantile(99.9)),
		Max:   time.Duration(h.Max()),
	}
	if keep {
		if enc, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err == nil {
			l.Encoded = string(enc)
		}
	}
	return l
}

// heatBuckets is 2^26 µs ≈ 67 s and above in the last one.
const heatBuckets = 27

// heatBucket is the row of the heat map: the number of bits of the whole
// microseconds.
func heatBucket(d time.Duration) int {
	return min(bits.Len64(uint64(max(d, 0)/time.Microsecond)), heatBuckets-1)
}

// interval is what one worker saw in one second.
type interval struct {
	ops     int64
	hist    *hdrhistogram.Histogram // two digits are enough to draw
	buckets [heatBuckets]int64
}

// recorder is one worker's own: no lock, no sharing.
type recorder struct {
	response, service, lag, reads *hdrhistogram.Histogram
	errors                        int64
	ops                           int64 // done inside the measured time
	stages                        stageSums
	series                        []*interval
}

type stageSums struct {
	n                              int64
	queue, save, replicate, apply_ time.Duration
}

func newRecorder() *recorder {
	return &recorder{response: NewHistogram(), service: NewHistogram(), lag: NewHistogram(), reads: NewHistogram()}
}

// second is the interval that holds time t since the start.
func (r *recorder) second(t time.Duration) *interval {
	i := int(t / time.Second)
	for len(r.series) <= i {
		r.series = append(r.series, &interval{hist: hdrhistogram.New(1000, histMax, 2)})
	}
	return r.series[i]
}

func (r *recorder) tick(t, response time.Duration) {
	iv := r.second(t)
	iv.ops++
	_ = iv.hist.RecordValue(min(int64(response), histMax))
	iv.buckets[heatBucket(response)]++
}

// stages adds the parts of one operation's service time. They are clipped so
// that they add up to it: a commit may overtake the leader's own Save, which then
// was waited for only in part.
func (s *stageSums) add(sent time.Duration, d Done) {
	if d.SaveStart == 0 || d.Handed == 0 {
		return
	}
	start := min(max(d.SaveStart, sent), d.Handed)
	end := min(max(d.SaveEnd, start), d.Handed)
	if d.SaveEnd == 0 {
		end = d.Handed // the Save was still running when a majority had it
	}
	s.n++
	s.queue += start - sent
	s.save += end - start
	s.replicate += d.Handed - end
	s.apply_ += d.Applied - d.Handed
}
