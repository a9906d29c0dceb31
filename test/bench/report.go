package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// spread is what some measurements of the same have come to.
type spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"p25"`
	High   float64 `json:"p75"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(v []float64) spread {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return spread{}
	}
	at := func(q float64) float64 { // between two neighbours where it falls there
		x := q * float64(len(v)-1)
		i := int(x)
		return v[i] + (x-float64(i))*(v[min(i+1, len(v)-1)]-v[i])
	}
	return spread{at(0.5), at(0.25), at(0.75), v[0], v[len(v)-1]}
}

// packetRow is one contender's cost per packet.
type packetRow struct {
	Name     string    `json:"name"`
	Prefixes int       `json:"prefixes"`     // -1: it has no policy
	Net      spread    `json:"ns"`           // the generator's cost subtracted
	Times    spread    `json:"times_drop"`   // of bare XDP_DROP in the same round
	Ours     float64   `json:"times_ours"`   // of synward at as many prefixes, 0: not compared
	Load     float64   `json:"load_seconds"` // of the policy
	Memory   int64     `json:"memory_bytes"` // roughly: of the whole machine, from before to after
	Raw      []float64 `json:"raw_ns"`       // by round, with the generator's cost
}

// goodputRow is one contender under one load.
type goodputRow struct {
	Name  string    `json:"name"`
	Load  int       `json:"load_per_second"`
	Rate  spread    `json:"connections_per_second"`
	Calm  float64   `json:"of_calm"` // share of its own rate without a flood
	P50   float64   `json:"p50_ms"`
	P99   float64   `json:"p99_ms"`
	Flood float64   `json:"flood_per_second"` // what the generator came to
	Raw   []outcome `json:"runs"`
}

// target is a promise, and whether this run keeps it.
type target struct {
	What string  `json:"what"`
	Got  float64 `json:"got"`
	Want float64 `json:"want"`
	Most bool    `json:"at_most"` // else at least
	Kept bool    `json:"kept"`
}

type report struct {
	Time    time.Time    `json:"time"`
	Kernel  string       `json:"kernel"`
	CPU     string       `json:"cpu"`
	CPUs    int          `json:"cpus"`
	Rounds  int          `json:"rounds"`
	Packets []packetRow  `json:"packets"`
	Goodput []goodputRow `json:"goodput"`
	Targets []target     `json:"targets"`
}

func newReport(o options) *report {
	r := &report{Time: time.Now().UTC().Truncate(time.Second), CPUs: runtime.NumCPU(), Rounds: o.rounds}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	if _, after, ok := strings.Cut(string(info), "model name"); ok {
		line, _, _ := strings.Cut(after, "\n")
		r.CPU = strings.Trim(line, "\t: ")
	}
	return r
}

// addPackets turns costs into rows. Every round is reckoned with its own floor,
// so that what slows the whole machine down for a while cancels out.
func (r *report) addPackets(list []*contender, costs map[*contender][]float64) {
	find := func(name string, prefixes int) []float64 {
		for _, c := range list {
			if c.name == name && c.prefixes == prefixes {
				return costs[c]
			}
		}
		return nil
	}
	alone, floor := find(nameAlone, -1), minus(find(nameDrop, -1), find(nameAlone, -1))
	for _, c := range list {
		if c.name == nameAlone || passing[c.name] != "" {
			continue
		}
		r.Packets = append(r.Packets, c.row(costs[c], minus(costs[c], alone), floor))
	}
	// What the filter adds to a packet that passes anyhow, upon the floor.
	top := sizes[len(sizes)-1]
	for from, name := range passing {
		raw := find(from, top)
		c := &contender{name: name, prefixes: top}
		r.Packets = append(r.Packets, c.row(raw, plus(minus(raw, find(namePass, -1)), floor), floor))
	}
	r.sort()
	r.compare()
	r.packetTargets()
}

func (c *contender) row(raw, net, floor []float64) packetRow {
	return packetRow{
		Name: c.name, Prefixes: c.prefixes, Net: spreadOf(net), Times: spreadOf(over(net, floor)),
		Load: c.load.Seconds(), Memory: c.memory, Raw: raw,
	}
}

func zip(a, b []float64, fn func(x, y float64) float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = fn(a[i], b[i])
	}
	return out
}

func minus(a, b []float64) []float64 {
	return zip(a, b, func(x, y float64) float64 { return x - y })
}
func plus(a, b []float64) []float64 { return zip(a, b, func(x, y float64) float64 { return x + y }) }
func over(a, b []float64) []float64 { return zip(a, b, func(x, y float64) float64 { return x / y }) }

// passing are the measurements of packets that pass, and the rows they become.
var passing = map[string]string{nameOther: nameAllowed, nameKnown: namePartner, nameSteady: nameHost}

// order is that of the table.
var order = []string{nameDrop, nameSynward, nameHost, namePartner, nameAllowed, nameNetdev, nameIpset, nameAllowOnly, nameCount, nameConnlimit, nameNone, namePass}

func (r *report) sort() {
	slices.SortFunc(r.Packets, func(a, b packetRow) int {
		if d := slices.Index(order, a.Name) - slices.Index(order, b.Name); d != 0 {
			return d
		}
		return a.Prefixes - b.Prefixes
	})
}

func (r *report) packet(name string, prefixes int) *packetRow {
	for i := range r.Packets {
		if r.Packets[i].Name == name && r.Packets[i].Prefixes == prefixes {
			return &r.Packets[i]
		}
	}
	return nil
}

// notCompared are ourselves, and what drops nothing that we would.
var notCompared = []string{nameSynward, nameHost, nameAllowed, namePartner, nameDrop, namePass}

// compare sets rows beside synward at as many prefixes; what has no policy is
// set beside it at the most.
func (r *report) compare() {
	for i := range r.Packets {
		row := &r.Packets[i]
		n := row.Prefixes
		if n < 0 {
			n = sizes[len(sizes)-1]
		}
		ours := r.packet(nameSynward, n)
		if ours != nil && !slices.Contains(notCompared, row.Name) {
			row.Ours = row.Times.Median / ours.Times.Median
		}
	}
}

// addGoodput turns what clients saw into rows.
func (r *report) addGoodput(got map[cell][]outcome) {
	calm := map[string]float64{}
	for at, runs := range got {
		row := goodputRow{Name: at.c.name, Load: at.load, Raw: runs}
		collect := func(fn func(outcome) float64) spread {
			var v []float64
			for _, o := range runs {
				v = append(v, fn(o))
			}
			return spreadOf(v)
		}
		row.Rate = collect(func(o outcome) float64 { return o.Rate })
		row.P50 = collect(func(o outcome) float64 { return o.P50 }).Median
		row.P99 = collect(func(o outcome) float64 { return o.P99 }).Median
		row.Flood = collect(func(o outcome) float64 { return o.Flood }).Median
		if at.load == 0 {
			calm[row.Name] = row.Rate.Median
		}
		r.Goodput = append(r.Goodput, row)
	}
	for i := range r.Goodput {
		if c := calm[r.Goodput[i].Name]; c > 0 {
			r.Goodput[i].Calm = r.Goodput[i].Rate.Median / c
		}
	}
	names := slices.Concat([]string{nameIdeal}, order, []string{nameOpen})
	slices.SortFunc(r.Goodput, func(a, b goodputRow) int {
		if d := slices.Index(names, a.Name) - slices.Index(names, b.Name); d != 0 {
			return d
		}
		return a.Load - b.Load
	})
	r.goodputTargets()
}

func (r *report) goodputOf(name string, load int) *goodputRow {
	for i := range r.Goodput {
		if r.Goodput[i].Name == name && r.Goodput[i].Load == load {
			return &r.Goodput[i]
		}
	}
	return nil
}

func (r *report) write(o options) error {
	var errs []error
	if o.json != "" {
		var out bytes.Buffer
		enc := json.NewEncoder(&out)
		enc.SetIndent("", " ")
		errs = append(errs, enc.Encode(r), replaceFile(o.json, out.Bytes()))
	}
	if o.svg != "" {
		errs = append(errs, replaceFile(o.svg, []byte(r.plot())))
	}
	if o.write {
		errs = append(errs, r.writeDocs("docs/performance.md"))
	}
	return errors.Join(errs...)
}

// The part of docs/performance.md that is the last run's table.
const (
	docsBegin = "<!-- make bench -->\n"
	docsEnd   = "<!-- /make bench -->\n"
)

// writeDocs puts the table into its place in a page.
func (r *report) writeDocs(path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	before, rest, ok := strings.Cut(string(page), docsBegin)
	_, after, ended := strings.Cut(rest, docsEnd)
	if !ok || !ended {
		return fmt.Errorf("write the table: %s has no place marked for it", path)
	}
	return replaceFile(path, []byte(before+docsBegin+r.table()+docsEnd+after))
}

// label is a contender's name with the size of its policy.
func label(name string, prefixes int) string {
	if prefixes < 0 {
		return name
	}
	return name + ", " + short(prefixes)
}

// short is a number of prefixes, or of packets, as people say it.
func short(n int) string {
	switch {
	case n >= 1e6 && n%1e6 == 0:
		return strconv.Itoa(n/1e6) + "M"
	case n >= 1e3 && n%1e3 == 0:
		return strconv.Itoa(n/1e3) + "k"
	}
	return fmt.Sprint(n)
}
