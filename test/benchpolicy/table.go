package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// table is the results as Markdown: a column for each size.
func table(all []*result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, Linux %s, %d CPUs\n\n", time.Now().UTC().Format(time.DateOnly), release(), runtime.NumCPU())
	line := func(cells ...string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	head, rule := []string{"from its start to its end"}, []string{"---"}
	for _, r := range all {
		head, rule = append(head, thousands(r.n)+" prefixes"), append(rule, "--:")
	}
	line(head...)
	line(rule...)
	for i, st := range all[0].steps {
		cells := []string{st.what}
		for _, r := range all {
			cells = append(cells, r.steps[i].String())
		}
		line(cells...)
	}
	for _, what := range watched {
		cells := []string{"longest wait of " + what + " meanwhile"}
		for _, r := range all {
			longest, errs := time.Duration(0), 0
			for _, st := range r.steps {
				longest, errs = max(longest, st.wait[what]), errs+st.errs
			}
			if cell := short(longest); errs > 0 {
				cells = append(cells, fmt.Sprintf("%s, %d failed", cell, errs))
			} else {
				cells = append(cells, cell)
			}
		}
		line(cells...)
	}
	for i, m := range all[0].mem {
		cells := []string{"the agent's memory, " + m.when}
		for _, r := range all {
			cells = append(cells, fmt.Sprintf("%d MiB", r.mem[i].mib))
		}
		line(cells...)
	}
	b.WriteString("\n" + promises(all))
	return b.String()
}

// promises sets beside what is promised what was measured, at the largest size.
func promises(all []*result) string {
	largest := all[len(all)-1]
	var b strings.Builder
	fmt.Fprintf(&b, "| at %s prefixes, the longest | measured | wanted | kept |\n| --- | --: | --: | --- |\n", thousands(largest.n))
	for _, st := range largest.steps {
		if st.what != indexOfOne && st.what != indexOfMany {
			continue
		}
		kept, longest := "yes", slices.Max(st.took)
		if longest > indexPromise {
			kept = "**no**"
		}
		fmt.Fprintf(&b, "| %s | %s | ≤ %s | %s |\n", st.what, short(longest), short(indexPromise), kept)
	}
	return b.String()
}

// String is the time, and where it was taken often the median and the longest.
func (s step) String() string {
	slices.Sort(s.took)
	if n := len(s.took); n > 1 {
		return fmt.Sprintf("%s (at most %s)", short(s.took[n/2]), short(s.took[n-1]))
	}
	return short(s.took[0])
}

// short is a time with two or three digits.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "?"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// writeDoc puts the table between its marks in a page.
func writeDoc(path, text string) error {
	const begin, end = "<!-- make bench-policy -->\n", "<!-- /make bench-policy -->"
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	i, j := bytes.Index(page, []byte(begin)), bytes.Index(page, []byte(end))
	if i < 0 || j < i {
		return fmt.Errorf("%s: no place for the table", path)
	}
	out := slices.Concat(page[:i+len(begin)], []byte(text), page[j:])
	return os.WriteFile(path, out, 0o644)
}
