// Package stats turns runs into statements: medians with intervals, comparisons
// with verdicts, thresholds that hold or do not.
//
// A run is the replicate. The operations inside one are not independent of each
// other (they share a compaction, a neighbour, a state of the disk's cache), so a
// percentile over a million operations is still one observation.
//
// # Medians
//
// [Summarize] gives the median and an order-statistic interval, by
// golang.org/x/perf/benchmath.AssumeNothing: no distribution is assumed. A 95 %
// interval needs 6 runs; with fewer there is none, and none is made up.
//
// # Comparisons
//
// [Compare] works within blocks. A block holds every backend once, so that what
// drifts slowly (the disk, the neighbours) divides out of the ratio backend ÷
// baseline. Per metric it gives the median of the ratios, an interval, two tests,
// and a verdict.
//
// The interval is the wider, at each end, of the seeded percentile bootstrap of
// the median and of the order-statistic interval. The bootstrap alone is not
// enough: the median of 6 to 20 values takes few distinct values when resampled,
// and in simulation its 95 % interval covered the truth in 92 to 94 of 100 cases.
// The order-statistic interval is exact (96.9 % at 6 blocks, 97.9 % at 10, 95.9 %
// at 20) for any continuous distribution; it is not always the wider one.
//
// The tests are Mann-Whitney on the values, and a paired t-test on the logarithms
// of the ratios, each corrected by Holm over the whole table (every comparison of
// one call). Neither alone will do:
//
//   - Mann-Whitney does not know the blocks. Where the disk drifts by 10 % between
//     blocks, and the values scatter by 3 % within, it finds a difference of 10 %
//     in 43 of 100 single comparisons and in 2 of 100 in a table of 40.
//   - A paired rank test cannot go below 2/2ⁿ: with 10 blocks p ≥ 0.00195, and
//     Holm over more than 25 comparisons can then never decide. The t-test has no
//     such limit. Its assumption is mild here: if two backends are the same, the
//     logarithm of their ratio is symmetric about zero by exchange, whatever the
//     noise, and heavy tails make the test cautious rather than bold.
//
// # Verdicts
//
// With fewer than 6 blocks the verdict is always inconclusive. Else, in this
// order:
//
//   - equivalent: the interval lies inside 1 ± noise (3 % unless told). A real
//     difference smaller than the noise is not worth a verdict.
//   - faster or slower: the interval excludes 1, and one of the two tests, after
//     Holm, is below 2.5 %: two tests share the 5 %.
//   - inconclusive: anything else.
//
// That both the interval and a test must agree keeps wrong verdicts rare where a
// table is read as a whole: the test in this package that simulates tables of 1 to
// 40 comparisons (noise of 2 to 15 % with outliers; no drift, jumps, a random
// walk, a trend) finds at least one wrong faster or slower in at most 5 of 100
// tables, and in about 1 of 100 single comparisons. The interval alone has one
// in 55 of 100 tables of 40.
//
// [CompareSuites] is for two suites that share no block: ratio of medians, both
// sides resampled, Mann-Whitney only. Drift between the suites counts as
// difference there; nothing in the figures can tell them apart.
package stats
