package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report is all numbers of a run.
type report struct {
	Time     time.Time                      `json:"time"`
	CPUs     int                            `json:"cpus"`
	Pipeline bool                           `json:"pipelining"`
	Seconds  float64                        `json:"seconds_each"`
	Syncs    map[string]string              `json:"syncs_before_250"`
	Loads    []string                       `json:"loads"`
	Runs     map[string]map[string][]result `json:"runs"`   // by load and server
	Median   map[string]map[string]result   `json:"median"` // each number by itself
	Idle     map[string]float64             `json:"idle_kib"`
}

func newReport(o options) *report {
	return &report{
		Time: time.Now().UTC(), CPUs: runtime.NumCPU(), Pipeline: o.pipeline, Seconds: o.duration.Seconds(), Syncs: map[string]string{},
		Runs: map[string]map[string][]result{}, Median: map[string]map[string]result{}, Idle: map[string]float64{},
	}
}

func (r *report) add(server string, sc scenario, m result) {
	if r.Runs[sc.Name] == nil {
		r.Loads = append(r.Loads, sc.Name)
		r.Runs[sc.Name], r.Median[sc.Name] = map[string][]result{}, map[string]result{}
	}
	r.Runs[sc.Name][server] = append(r.Runs[sc.Name][server], m)
	runs := r.Runs[sc.Name][server]
	mid := func(f func(result) float64) float64 {
		var v []float64
		for _, x := range runs {
			v = append(v, f(x))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	sum := result{
		Accepted: mid(func(x result) float64 { return x.Accepted }), Delivered: mid(func(x result) float64 { return x.Delivered }),
		CPU: mid(func(x result) float64 { return x.CPU }), P50: mid(func(x result) float64 { return x.P50 }), P99: mid(func(x result) float64 { return x.P99 }),
	}
	for _, x := range runs {
		sum.Messages += x.Messages
		sum.Lost += x.Lost
		sum.Twice += x.Twice
	}
	r.Median[sc.Name][server] = sum
}

func (r *report) write(o options) error {
	fmt.Print(r.table())
	var errs []error
	if o.json != "" {
		errs = append(errs, writeJSON(o.json, r))
	}
	if o.svg != "" {
		errs = append(errs, os.WriteFile(o.svg, []byte(r.plot()), 0o644))
	}
	if o.doc {
		errs = append(errs, writeJSON("docs/performance-relay.json", r), os.WriteFile("docs/performance-relay.svg", []byte(r.plot()), 0o644),
			writeDoc("docs/performance.md", r.table()))
	}
	return errors.Join(errs...)
}

const (
	ours   = "synward"
	theirs = "postfix"
	open   = "opensmtpd"
)

// The part of docs/performance.md that is the last run's tables.
const docBegin, docEnd = "<!-- make bench-relay -->\n", "<!-- /make bench-relay -->"

// writeDoc puts the tables between the marks of a page.
func writeDoc(path, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(b), docBegin)
	_, after, ok2 := strings.Cut(rest, docEnd)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s: no place for the tables: it has to have the lines %q and %q", path, strings.TrimSpace(docBegin), docEnd)
	}
	return os.WriteFile(path, []byte(before+docBegin+"![the numbers below, as bars](performance-relay.svg)\n\n"+strings.TrimLeft(text, "\n")+docEnd+after), 0o644)
}

// table is the medians in Markdown.
func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %d CPUs; pipelining %v, %.0f s each, median of the rounds. TLS and AUTH where nothing else is said.\n\n",
		r.Time.Format(time.DateOnly), r.CPUs, r.Pipeline, r.Seconds)
	b.WriteString("| load | server | accepted/s | delivered/s | CPU s per 1,000 | p50 of the 250, ms | p99, ms | lost | twice |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, l := range r.Loads {
		for _, s := range []string{theirs, open, ours} {
			if m, ok := r.Median[l][s]; ok {
				fmt.Fprintf(&b, "| %s | %s | %.0f | %.0f | %.3f | %.2f | %.2f | %d | %d |\n", l, s, m.Accepted, m.Delivered, m.CPU, m.P50, m.P99, m.Lost, m.Twice)
			}
		}
		for _, other := range []string{theirs, open} {
			p, s := r.Median[l][other], r.Median[l][ours]
			if p.Accepted > 0 && s.Accepted > 0 {
				fmt.Fprintf(&b, "| | synward : %s | **%.2f** | **%.2f** | **%.3f** | %.3f | %.3f | | |\n", other, s.Accepted/p.Accepted, s.Delivered/p.Delivered, s.CPU/p.CPU, s.P50/p.P50, s.P99/p.P99)
			}
		}
	}
	b.WriteString("\n| server | KiB per idle session under TLS | on the disk before its 250 |\n|---|--:|---|\n")
	for _, s := range []string{theirs, open, ours} {
		if said, ok := r.Syncs[s]; ok {
			idle := "no TLS"
			if kib, ok := r.Idle[s]; ok {
				idle = fmt.Sprintf("%.1f", kib)
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", s, idle, said)
		}
	}
	return b.String() + r.promises()
}

// promises are what the relay has to reach, beside what it has.
func (r *report) promises() string {
	const main, plain = "50 sessions, 4 KiB", "50 sessions, 4 KiB, no TLS"
	type of = func(result) float64
	accepted, delivered, cpu := of(func(x result) float64 { return x.Accepted }), of(func(x result) float64 { return x.Delivered }), of(func(x result) float64 { return x.CPU })
	var b strings.Builder
	for _, p := range []struct {
		what, load, other string
		f                 of
		want              float64
		atMost            bool
	}{
		{"accepted/s, times Postfix", main, theirs, accepted, 4, false},
		{"delivered/s, times Postfix", main, theirs, delivered, 5, false},
		{"CPU per 1,000, of Postfix's", main, theirs, cpu, 0.1, true},
		{"accepted/s, 1 session, times Postfix", "1 session, 4 KiB", theirs, accepted, 3.5, false},
		{"accepted/s, 50 KiB, times Postfix", "50 sessions, 50 KiB", theirs, accepted, 2.5, false},
		{"accepted/s, one message a connection, times Postfix", "one message a connection, 50 at once", theirs, accepted, 2, false},
		{"accepted/s, no TLS, times OpenSMTPD", plain, open, accepted, 2.5, false},
	} {
		o, s := r.Median[p.load][p.other], r.Median[p.load][ours]
		if p.f(o) > 0 && p.f(s) > 0 {
			b.WriteString(promise(p.what, p.f(s)/p.f(o), p.want, p.atMost))
		}
	}
	if kib, ok := r.Idle[ours]; ok {
		b.WriteString(promise("KiB per idle session under TLS", kib, 45, true))
	}
	if b.Len() == 0 {
		return ""
	}
	return "\n| promise | measured | wanted | kept |\n|---|--:|--:|---|\n" + b.String()
}

func promise(what string, got, want float64, atMost bool) string {
	sign, kept := "≥", got >= want
	if atMost {
		sign, kept = "≤", got <= want
	}
	return fmt.Sprintf("| %s | %.2f | %s %v | %s |\n", what, got, sign, want, map[bool]string{true: "yes", false: "NO"}[kept])
}
