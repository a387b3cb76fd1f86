package reports

import (
	"fmt"
	"io"
	"strings"

	"github.com/raftbench/raftbench/bench/result"
)

// Markdown writes the verdict and the scoreboard as GitHub-flavoured Markdown,
// for a ticket or a pull request.
func Markdown(w io.Writer, r *result.Result) error {
	var b strings.Builder
	s := newSite([]*result.Result{r})
	j := s.headline().judge()
	fmt.Fprintf(&b, "**%s**\n", mdText(j.Sentence))
	for _, d := range j.Detail {
		fmt.Fprintf(&b, "%s\n", mdText(d))
	}
	fmt.Fprintf(&b, "\n%s %s\n", mdText(j.Distance), mdText(j.Durable))
	for _, sc := range s.joined() {
		markdownTable(&b, sc)
	}
	if len(j.Reasons) > 0 {
		fmt.Fprintf(&b, "\n%s:\n\n", capital(j.Validity.String()))
		for _, reason := range j.Reasons {
			where := ""
			if reason.Where != "" {
				where = " (" + reason.Where + ")"
			}
			fmt.Fprintf(&b, "- **%s**%s: %s %s\n", mdText(reason.Title), mdText(where), mdText(reason.Meaning), mdText(reason.Action))
		}
	}
	fmt.Fprintf(&b, "\n%s\n\n```sh\n%s\n```\n", mdText(machineText(s.env)), commandText(r.Command))
	_, err := io.WriteString(w, b.String())
	return err
}

func markdownTable(b *strings.Builder, sc *scenario) {
	rows := sc.tableRows()
	columns, heads := sc.tableColumns(rows), sc.nameHeads()
	fmt.Fprintf(b, "\n%s, median of %s:\n\n| %s |", mdText(capital(sc.title())), plural(sc.repeats(), "run"), strings.Join(heads, " | "))
	for _, c := range columns {
		b.WriteString(" " + mdText(strings.TrimSpace(columnTitle(c))) + " |")
	}
	b.WriteString("\n|" + strings.Repeat(":--|", len(heads)) + strings.Repeat("--:|", len(columns)) + "\n")
	for i, rw := range rows {
		names := sc.names(rw)
		for k := range names {
			names[k] = mdText(names[k])
		}
		if rw.durability == "none" {
			names[0] += " (not durable)"
		}
		b.WriteString("| " + strings.Join(names, " | ") + " |")
		for _, c := range columns {
			b.WriteString(" " + mdText(c.cells[i].text) + " |")
		}
		b.WriteByte('\n')
	}
}

// columnTitle joins the two lines of a column's head: "response p99, ms".
func columnTitle(c tableColumn) string {
	group, unit, found := strings.Cut(c.group, ", ")
	title := group
	if title != "" && !strings.HasPrefix(c.head, "/") {
		title += " "
	}
	title += c.head
	if found {
		title += ", " + unit
	}
	return title
}

// mdText escapes what Markdown and the HTML inside it would interpret.
func mdText(s string) string {
	var b strings.Builder
	for _, r := range clean(s) {
		switch r {
		case '\\', '`', '*', '_', '[', ']', '|', '~', '#':
			b.WriteByte('\\')
			b.WriteRune(r)
		case '<':
			b.WriteString("&lt;")
		case '>':
			b.WriteString("&gt;")
		case '&':
			b.WriteString("&amp;")
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// machineText is the machine in one line.
func machineText(e result.Env) string {
	var parts []string
	add := func(s string) {
		if s != "" {
			parts = append(parts, clean(s))
		}
	}
	cpu := e.CPU
	if e.Cores > 0 {
		cpu = strings.TrimSpace(plural(e.Cores, "core") + " of " + e.CPU) // "2 × CPU" would be two of them
		if e.CPU == "" {
			cpu = plural(e.Cores, "core")
		}
	}
	add(cpu)
	add(strings.TrimSpace(e.FileSystem + " on " + firstOf(e.Model, e.Device, "an unknown device")))
	add(strings.TrimSpace(strings.TrimSpace(e.OS + " " + e.Kernel)))
	add(e.Virtualization)
	add(e.Go)
	return strings.Join(parts, " · ")
}

func firstOf(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}

// commandText is the command for a POSIX shell, every argument quoted that
// needs it.
func commandText(argv []string) string {
	if len(argv) == 0 {
		return "# the command was not recorded"
	}
	out := make([]string, len(argv))
	for i, a := range argv {
		out[i] = shellQuote(clean(a))
	}
	return strings.Join(out, " ")
}

func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,@%+", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
