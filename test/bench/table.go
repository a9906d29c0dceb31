package main

import (
	"fmt"
	"strings"
)

func (r *report) target(what string, got, want float64, most bool) {
	kept := got >= want
	if most {
		kept = got <= want
	}
	r.Targets = append(r.Targets, target{what, got, want, most, kept})
}

func (r *report) packetTargets() {
	ours := func(n int) float64 { return r.packet(nameSynward, n).Times.Median }
	for _, n := range sizes[1:] {
		r.target("a stranger, times bare XDP_DROP, at "+short(n), ours(n), 1.5, true)
	}
	r.target("a stranger at 1M, times at 1k", ours(1_000_000)/ours(1_000), 1.25, true)
	r.target("an allowed SYN of 1k sources, times bare XDP_DROP, at 1M", r.packet(nameHost, 1_000_000).Times.Median, 3.5, true)
	if r.packet(nameCount, -1) == nil {
		return // ours alone
	}
	for i, n := range sizes[1:] {
		r.target("nftables netdev, times synward, at "+short(n), r.packet(nameNetdev, n).Ours, []float64{7, 14, 20}[i], false)
	}
	r.target("nftables ct count, times synward", r.packet(nameCount, -1).Ours, 30, false)
}

func (r *report) goodputTargets() {
	flooded := func(name string, load int) float64 { return r.goodputOf(name, load).Rate.Median }
	r.target("goodput of calm under 300k SYNs/s", r.goodputOf(nameSynward, 300_000).Calm, 0.8, false)
	r.target("goodput of calm under 1M SYNs/s", r.goodputOf(nameSynward, 1_000_000).Calm, 0.5, false)
	most := loads[len(loads)-1]
	ours := flooded(nameSynward, most)
	r.target("goodput, times nftables netdev, under "+short(most), ours/max(1, flooded(nameNetdev, most)), 4, false)
	r.target("goodput, times ct count, under "+short(most), ours/max(1, flooded(nameCount, most)), 100, false)
}

// table is everything for people, in Markdown that is aligned as text as well.
func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, Linux %s, %d × %s\n", r.Time.Format("2006-01-02"), r.Kernel, r.CPUs, r.CPU)
	if len(r.Packets) > 0 {
		fmt.Fprintf(&b, "\nOne SYN through the whole receive path, the generator's cost subtracted; medians of %d interleaved rounds, in brackets the quartiles.\n\n", r.Rounds)
		b.WriteString(r.packetTable())
	}
	if len(r.Goodput) > 0 {
		fmt.Fprintf(&b, "\nSMTP connections of an allowed client through a flood of strangers' SYNs, %s prefixes, server and client on one CPU, the flood on another.\n\n", short(goodputPrefixes))
		b.WriteString(r.goodputTable())
	}
	b.WriteString("\nWhat has to hold:\n\n")
	rows := [][]string{{"what", "measured", "wanted", "kept"}}
	for _, t := range r.Targets {
		sign, kept := "≥", "yes"
		if t.Most {
			sign = "≤"
		}
		if !t.Kept {
			kept = "NO"
		}
		rows = append(rows, []string{t.What, fmt.Sprintf("%.2f", t.Got), fmt.Sprintf("%s %g", sign, t.Want), kept})
	}
	b.WriteString(align(rows))
	return b.String()
}

func (r *report) packetTable() string {
	rows := [][]string{{"what", "prefixes", "ns", "× XDP_DROP", "× synward", "load s", "MiB"}}
	for _, p := range r.Packets {
		row := []string{p.Name, "", fmt.Sprintf("%.0f [%.0f–%.0f]", p.Net.Median, p.Net.Low, p.Net.High),
			fmt.Sprintf("%.2f [%.2f–%.2f]", p.Times.Median, p.Times.Low, p.Times.High), "", "", ""}
		if p.Prefixes >= 0 {
			row[1] = short(p.Prefixes)
		}
		if p.Ours > 0 {
			row[4] = fmt.Sprintf("%.1f", p.Ours)
		}
		if p.Prefixes > 0 && p.Load > 0 {
			row[5], row[6] = fmt.Sprintf("%.2f", p.Load), fmt.Sprintf("%.0f", float64(p.Memory)/(1<<20))
		}
		rows = append(rows, row)
	}
	return align(rows)
}

func (r *report) goodputTable() string {
	rows := [][]string{{"what", "SYNs/s", "connections/s", "of calm", "p50 ms", "p99 ms", "sent/s"}}
	for _, g := range r.Goodput {
		load := "calm"
		if g.Load > 0 {
			load = short(g.Load)
		}
		rows = append(rows, []string{g.Name, load, fmt.Sprintf("%.0f [%.0f–%.0f]", g.Rate.Median, g.Rate.Low, g.Rate.High),
			fmt.Sprintf("%.3f", g.Calm), fmt.Sprintf("%.1f", g.P50), fmt.Sprintf("%.1f", g.P99),
			fmt.Sprintf("%.0f", g.Flood)})
	}
	return align(rows)
}

// align makes a table of Markdown whose columns stand below one another.
func align(rows [][]string) string {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, s := range row {
			width[i] = max(width[i], len([]rune(s)))
		}
	}
	var b strings.Builder
	for n, row := range rows {
		for i, s := range row {
			gap := strings.Repeat(" ", width[i]-len([]rune(s)))
			if i == 0 {
				b.WriteString("| " + s + gap + " |")
			} else {
				b.WriteString(" " + gap + s + " |")
			}
		}
		b.WriteString("\n")
		for i := 0; n == 0 && i < len(row); i++ {
			if i == 0 {
				b.WriteString("|" + strings.Repeat("-", width[i]+2) + "|")
			} else {
				b.WriteString(strings.Repeat("-", width[i]+1) + ":|")
			}
		}
		if n == 0 {
			b.WriteString("\n")
		}
	}
	return b.String()
}
