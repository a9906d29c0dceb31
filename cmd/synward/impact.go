package main

import (
	"fmt"
	"time"

	"github.com/synward/synward/agent/control"
)

// printImpact says what a change would have done to the attempts of the last
// days.
func printImpact(s streams, i *control.Impact, now time.Time) {
	if i == nil {
		return
	}
	since := i.Since.Local().Format("Mon 2 Jan 15:04")
	if i.Cuts.Sources+i.Admits.Sources == 0 {
		fmt.Fprintf(s.out, "impact: no attempt since %s would have met another verdict\n", since)
		return
	}
	for _, part := range []struct {
		verb, what string
		a          control.Affected
	}{{"cuts", "connection", i.Cuts}, {"lets in", "attempt", i.Admits}} {
		if part.a.Sources == 0 {
			continue
		}
		fmt.Fprintf(s.out, "impact: %s %s, %s since %s:\n", part.verb, plural(part.a.Sources, "source", "sources"),
			thousands(part.a.Attempts)+" "+part.what+map[bool]string{true: "", false: "s"}[part.a.Attempts == 1], since)
		for _, t := range part.a.Top {
			fmt.Fprintf(s.out, "  %-24s %8s  last %s, port %s\n", t.Source, thousands(t.Attempts), ago(t.Last, now), unknownPorts(t.Ports))
		}
		if more := part.a.Sources - len(part.a.Top); more > 0 {
			fmt.Fprintf(s.out, "  and %d more\n", more)
		}
	}
}

func unknownPorts(ports []uint16) string {
	if len(ports) == 0 {
		return "not known"
	}
	return portList(ports)
}

// thousands is a number with its thousands set apart: 1,204.
func thousands(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
