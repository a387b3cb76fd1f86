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
//     in 37 of 100 single comparisons, and in none of 50 tables of 40; with the
//     paired test beside it, in 90 and 69 of 100.
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
// table is read as a whole. Simulated tables of 10 blocks and 1, 5 or 40
// comparisons (scatter of 2 to 15 % with outliers; no drift, jumps between blocks,
// a random walk, a trend) hold a wrong faster or slower in at most 3 of 100 cases,
// and single comparisons in 1 or 2 of 100; the interval alone would put one into
// a third to a half of the tables of 40. A difference of 10 % is found in 90 to 99 of
// 100 single comparisons where runs of a block scatter by 2 or 3 %, in 74 where
// they scatter by 5 %, and in 10 where they scatter by 15 %: then only more blocks
// or longer runs help. docs/method.md has the table; `go test -run Found -v -full`
// makes it again.
//
// [CompareSuites] is for two suites that share no block: ratio of medians, both
// sides resampled, Mann-Whitney only. Drift between the suites counts as
// difference there; nothing in the figures can tell them apart.
package stats
