package main

import (
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
	if o.json != "" {
		if err := writeJSON(o.json, r); err != nil {
			return err
		}
	}
	if o.svg != "" {
		return os.WriteFile(o.svg, []byte(r.plot()), 0o644)
	}
	return nil
}

const (
	ours   = "synward"
	theirs = "postfix"
)

// table is the medians in Markdown.
func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d CPUs, TLS and AUTH, pipelining %v, %.0f s each, median of the rounds; ratios are synward : postfix\n\n", r.CPUs, r.Pipeline, r.Seconds)
	b.WriteString("| load | server | accepted/s | delivered/s | CPU s per 1,000 | p50 of the 250, ms | p99, ms | lost | twice |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, l := range r.Loads {
		for _, s := range []string{theirs, ours} {
			if m, ok := r.Median[l][s]; ok {
				fmt.Fprintf(&b, "| %s | %s | %.0f | %.0f | %.3f | %.2f | %.2f | %d | %d |\n", l, s, m.Accepted, m.Delivered, m.CPU, m.P50, m.P99, m.Lost, m.Twice)
			}
		}
		p, s := r.Median[l][theirs], r.Median[l][ours]
		if p.Accepted > 0 && s.Accepted > 0 {
			fmt.Fprintf(&b, "| | ratio | **%.2f** | **%.2f** | **%.3f** | %.3f | %.3f | | |\n", s.Accepted/p.Accepted, s.Delivered/p.Delivered, s.CPU/p.CPU, s.P50/p.P50, s.P99/p.P99)
		}
	}
	b.WriteString("\n| server | KiB per idle session under TLS | on the disk before its 250 |\n|---|--:|---|\n")
	for _, s := range []string{theirs, ours} {
		if said, ok := r.Syncs[s]; ok {
			fmt.Fprintf(&b, "| %s | %.1f | %s |\n", s, r.Idle[s], said)
		}
	}
	return b.String()
}

// plot is the rates as bars, each load on a scale of its own.
func (r *report) plot() string {
	const width, left, bar, gap = 760, 270, 16, 14
	var b strings.Builder
	y := 40
	line := func(label string, v, top float64, colour, unit string) {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%.0f" height="%d" fill="%s"/><text x="%.0f" y="%d">%.0f%s</text>`+"\n",
			left-8, y+12, label, left, y, max(1, v/top*(width-left-110)), bar-2, colour, left+max(1, v/top*(width-left-110))+6, y+12, v, unit)
		y += bar
	}
	for _, l := range r.Loads {
		p, s := r.Median[l][theirs], r.Median[l][ours]
		fmt.Fprintf(&b, `<text x="10" y="%d" font-weight="bold">%s</text>`+"\n", y, l)
		y += 8
		top := max(p.Accepted, s.Accepted, p.Delivered, s.Delivered, 1)
		line("postfix accepted", p.Accepted, top, "#b0b0b0", "/s")
		line("synward accepted", s.Accepted, top, "#2b6cb0", "/s")
		line("postfix delivered", p.Delivered, top, "#d0d0d0", "/s")
		line("synward delivered", s.Delivered, top, "#63a4e0", "/s")
		y += gap + 14
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12"><rect width="100%%" height="100%%" fill="white"/>`+"\n%s</svg>\n", width, y, b.String())
}
