package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The plot's measures, in pixels.
const (
	plotWidth = 860
	plotLeft  = 330
	plotRight = 90
	barHeight = 15
)

// plot draws two sets of bars: the cost of a packet, on a logarithmic scale, and
// the connections that get through.
func (r *report) plot() string {
	p := &plot{y: 24}
	if len(r.Packets) > 0 {
		p.title("One SYN through the receive path, as a multiple of a bare XDP_DROP (logarithmic)")
		top := 1.0
		for _, row := range r.Packets {
			top = max(top, row.Times.High)
		}
		place := func(v float64) float64 { return math.Log(max(1, v)*1.1) / math.Log(top*1.1) }
		for _, row := range r.Packets {
			if row.Name != namePass {
				p.bar(label(row.Name, row.Prefixes), place(row.Times.Median), fmt.Sprintf("%.1f", row.Times.Median), colour(row.Name))
				p.whisker(place(row.Times.Low), place(row.Times.High))
			}
		}
		p.y += 24
	}
	if len(r.Goodput) > 0 {
		p.title("SMTP connections per second of an allowed client")
		top := 1.0
		for _, row := range r.Goodput {
			top = max(top, row.Rate.High)
		}
		for _, row := range r.Goodput {
			load := "calm"
			if row.Load > 0 {
				load = short(row.Load) + " SYNs/s"
			}
			p.bar(row.Name+", "+load, row.Rate.Median/top, fmt.Sprintf("%.0f", row.Rate.Median), colour(row.Name))
			p.whisker(row.Rate.Low/top, row.Rate.High/top)
		}
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">
<rect width="100%%" height="100%%" fill="white"/>
%s</svg>
`, plotWidth, p.y+8, p.body.String())
}

type plot struct {
	body strings.Builder
	y    int
}

func (p *plot) title(s string) {
	fmt.Fprintf(&p.body, `<text x="10" y="%d" font-size="13" font-weight="bold">%s</text>`+"\n", p.y, html.EscapeString(s))
	p.y += 10
}

func scale(share float64) float64 { return plotLeft + share*(plotWidth-plotLeft-plotRight) }

func (p *plot) bar(label string, share float64, value, colour string) {
	end := scale(share)
	fmt.Fprintf(&p.body, `<text x="%d" y="%d" text-anchor="end">%s</text>`, plotLeft-6, p.y+11, html.EscapeString(label))
	fmt.Fprintf(&p.body, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, plotLeft, p.y+1, max(1, end-plotLeft), barHeight-3, colour)
	fmt.Fprintf(&p.body, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", plotWidth-20, p.y+11, value)
	p.y += barHeight
}

// whisker marks the quartiles on the bar that was drawn last.
func (p *plot) whisker(low, high float64) {
	y := p.y - barHeight/2 - 1
	fmt.Fprintf(&p.body, `<path d="M%.1f %dH%.1f" stroke="#333" stroke-width="1.5"/>`+"\n", scale(low), y, scale(high))
}

func colour(name string) string {
	switch name {
	case nameSynward, nameHost, nameAllowed, namePartner:
		return "#2b6cb0"
	case nameDrop:
		return "#63a4e0"
	}
	return "#b0b0b0"
}
