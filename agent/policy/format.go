package policy

import (
	"bufio"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FormatOptions choose what Format writes.
type FormatOptions struct {
	// Origins writes the option origin= with every entry. Without it the text
	// says of an entry that it is learned, and nothing else of who made it.
	Origins  bool
	Subjects []Subject // the names and feeds, after the prefixes
	Sorted   bool      // the entries come in the order of Set.All: none is held back
}

// header is the first line of a policy text. The columns have fixed widths,
// so that a long prefix does not move every other line in a diff.
const header = "# action  prefix            ports        options\n"

// Format writes entries as the text that Parse reads, sorted by prefix. Who
// made an entry and when is not in it.
func Format(w io.Writer, entries iter.Seq[Entry], o FormatOptions) error {
	if !o.Sorted {
		entries = slices.Values(slices.SortedFunc(entries, func(a, b Entry) int {
			x, y := item{at: placeOf(a.Prefix), terms: &a}, item{at: placeOf(b.Prefix), terms: &b}
			return compareItems(&x, &y)
		}))
	}
	buf := bufio.NewWriter(w)
	buf.WriteString(header) // the writer keeps the first error for Flush
	for e := range entries {
		buf.WriteString(line(e, e.Prefix.String(), options(e, o)))
		buf.WriteByte('\n')
	}
	for _, s := range slices.SortedFunc(slices.Values(o.Subjects), compareSubjects) {
		buf.WriteString(s.Line())
		buf.WriteByte('\n')
	}
	return buf.Flush()
}

// Line is an entry's line in the text form, without the line's end. The name
// that it comes of stands in a comment.
func (e Entry) Line() string {
	text := line(e, e.Prefix.String(), options(e, FormatOptions{}))
	if e.Name != "" {
		return text + "  # " + e.Name
	}
	return text
}

// Line is a subject's line in the text form, without the line's end.
func (s Subject) Line() string {
	return line(s.Entry, s.Word(), append(subjectOptions(s), options(s.Entry, FormatOptions{})...))
}

func line(e Entry, word string, options []string) string {
	var b strings.Builder
	column := func(width int, s string) {
		b.WriteString(s)
		b.WriteString(strings.Repeat(" ", max(width-len(s), 1)))
	}
	column(10, string(e.Action))
	column(18, word)
	column(13, joinPorts(e.Ports, ","))
	for _, option := range options {
		b.WriteString(option)
		b.WriteByte(' ')
	}
	return strings.TrimRight(b.String(), " ")
}

func options(e Entry, o FormatOptions) (out []string) {
	add := func(key, value string) { out = append(out, key+"="+value) }
	count := func(key string, n *uint32) {
		if n != nil {
			add(key, strconv.FormatUint(uint64(*n), 10))
		}
	}
	yes := func(key string, set bool) {
		if set {
			add(key, "yes")
		}
	}
	count("max-conns", e.MaxConns)
	if e.Rate != nil {
		add("rate", e.Rate.String())
	}
	count("burst", e.Burst)
	yes("shared", e.Shared)
	yes("relay", e.Relay)
	yes("immune", e.Immune)
	if !e.Expires.IsZero() {
		add("expires", e.Expires.UTC().Format(time.RFC3339))
	}
	if o.Origins || e.Origin == Learned {
		origin := string(e.Origin)
		if by := e.Feed + e.Name; by != "" { // never both
			origin += ":" + by
		}
		add("origin", origin)
	}
	if e.Note != "" {
		add("note", `"`+e.Note+`"`)
	}
	return out
}
