// Package reports turns the results of raftbench into what people read: the
// table on the terminal, Markdown for a ticket, bench.txt for benchstat,
// runs.csv for a spreadsheet, and report.html, one file that needs no network,
// no server and no script.
//
// Everything starts from [result.Result], as [Read] returns it or as bench
// builds it. Writers never measure and never judge on their own: intervals and
// comparisons come from bench/stats, reasons to doubt a run come from the flags
// that the runs carry and from the registry [Flags]. A figure that was not
// measured is shown as "–" and never as 0.
//
// Strings inside a result are data from elsewhere. Every writer escapes them
// for its format, control characters included, and no result can make a writer
// panic.
package reports
