package main

import (
	"fmt"
	"strings"
)

// plot is the rates as bars, each load on a scale of its own.
func (r *report) plot() string {
	const width, left, bar, gap = 760, 270, 16, 14
	var b strings.Builder
	y := 40
	line := func(label string, v, top float64, colour string) {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%.0f" height="%d" fill="%s"/><text x="%.0f" y="%d">%.0f/s</text>`+"\n",
			left-8, y+12, label, left, y, max(1, v/top*(width-left-110)), bar-2, colour, left+max(1, v/top*(width-left-110))+6, y+12, v)
		y += bar
	}
	for _, l := range r.Loads {
		fmt.Fprintf(&b, `<text x="10" y="%d" font-weight="bold">%s</text>`+"\n", y, l)
		y += 8
		top := 1.0
		for _, m := range r.Median[l] {
			top = max(top, m.Accepted, m.Delivered)
		}
		for _, s := range []struct{ name, dark, light string }{{theirs, "#b0b0b0", "#d0d0d0"}, {open, "#c9a13b", "#e3cf98"}, {ours, "#2b6cb0", "#63a4e0"}} {
			if m, ok := r.Median[l][s.name]; ok {
				line(s.name+" accepted", m.Accepted, top, s.dark)
				line(s.name+" delivered", m.Delivered, top, s.light)
			}
		}
		y += gap + 14
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12"><rect width="100%%" height="100%%" fill="white"/>`+"\n%s</svg>\n", width, y, b.String())
}
