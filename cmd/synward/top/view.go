package top

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/synward/synward/agent/control"
)

// maxReasons is how many reasons are shown where sources want room too.
const maxReasons = 5

// View is the screen: what is always there above, sources or a panel below,
// the keys at the bottom. No line is wider and the whole no higher than the
// terminal.
func (m model) View() tea.View {
	lines := append(m.head(), m.body(m.bodyHeight())...)
	lines = lines[:min(len(lines), max(m.height-1, 0))]
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines, lipgloss.NewStyle().Faint(true).Render(m.keys()))
	for i, l := range lines {
		lines[i] = ansi.Truncate(l, m.width, "…")
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	return v
}

// bodyHeight is the room between the head and the keys.
func (m model) bodyHeight() int { return max(m.height-len(m.head())-1, 0) }

func (m model) head() []string {
	bold := lipgloss.NewStyle().Bold(true)
	clock := "waiting for the agent"
	if !m.now.At.IsZero() {
		clock = m.now.At.Local().Format(time.TimeOnly)
	}
	lines := []string{bold.Render("synward top") + "  " + clock}
	if m.trouble != "" {
		red := lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true)
		for _, l := range strings.Split(ansi.Wrap(m.trouble, m.width, ""), "\n") {
			lines = append(lines, red.Render(l))
		}
		return append(lines, "")
	}
	return append(append(lines, m.now.Head...), "")
}

func (m model) body(room int) []string {
	if m.mode != watching {
		return m.panelLines(room)
	}
	var lines []string
	reasons := rates(m.before, m.now)
	if len(reasons) > 0 {
		lines = append(lines, heading("%-16s %-16s %10s %14s  %s", "REASON", "VERDICT", "PACKETS/S", "PACKETS", "PORTS"))
	}
	for _, r := range reasons[:min(len(reasons), maxReasons)] {
		lines = append(lines, reasonLine(r))
	}
	if len(reasons) > 0 {
		lines = append(lines, "")
	}
	return append(lines, m.sourceLines(room-len(lines))...)
}

func heading(format string, args ...any) string {
	return lipgloss.NewStyle().Bold(true).Render(fmt.Sprintf(format, args...))
}

func reasonLine(r reasonRate) string {
	verdict := r.verdict
	if r.observed {
		verdict += " (observed)"
	}
	style := lipgloss.NewStyle()
	if r.verdict == "drop" && r.perSecond > 0 {
		style = style.Foreground(lipgloss.Red)
	} else if r.perSecond > 0 {
		style = style.Foreground(lipgloss.Green)
	}
	return style.Render(fmt.Sprintf("%-16s %-16s %10.1f %14d  %s", r.reason, verdict, r.perSecond, r.total, numbers(r.ports)))
}

func numbers(ports []uint16) string {
	var out []string
	for _, p := range ports {
		out = append(out, strconv.Itoa(int(p)))
	}
	return strings.Join(out, ",")
}

// sourceLines are the sources that there is room for, the selected among them.
func (m model) sourceLines(room int) []string {
	if len(m.now.Sources) == 0 {
		return []string{"nobody has come in the last hour"}
	}
	lines := []string{heading("%-22s %7s %9s %9s %9s %6s  %s", "SOURCE, by "+string(m.order), "NEW/S", "ATTEMPTS", "DROPPED", "OPEN/CAP", "LAST", "WHY")}
	room = max(room-1, 1)
	at := max(m.index(), 0)
	first := min(max(at-room/2, 0), max(len(m.now.Sources)-room, 0))
	perSecond := sourceRates(m.before, m.now)
	for _, s := range m.now.Sources[first:min(first+room, len(m.now.Sources))] {
		line := fmt.Sprintf("%-22s %7.1f %9d %9d %9s %6s  %s", name(s), perSecond[s.Source], s.Attempts, s.Dropped, m.openOf(s), m.since(s.Last), why(s))
		if s.Source == m.selected {
			line = lipgloss.NewStyle().Reverse(true).Render(ansi.Truncate(line, m.width, "…"))
		}
		lines = append(lines, line)
	}
	return lines
}

// name is a source's address, or its prefix where it is more than one.
func name(s control.SourceUse) string {
	if s.Source.IsSingleIP() {
		return s.Source.Addr().String()
	}
	return s.Source.String()
}

// openOf is a source's open connections against its cap.
func (m model) openOf(s control.SourceUse) string {
	limit, known := m.now.Caps[s.Source]
	if !known || s.Open == 0 || limit == 0 {
		return strconv.FormatUint(s.Open, 10)
	}
	return fmt.Sprintf("%d/%d", s.Open, limit)
}

// since is how long ago a time was, in its largest unit.
func (m model) since(t time.Time) string {
	d := m.now.At.Sub(t)
	switch {
	case t.IsZero():
		return "-"
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(int(d.Seconds()), 0))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	}
	return fmt.Sprintf("%dh", int(d.Hours()))
}

// why is what a source met, the most frequent first.
func why(s control.SourceUse) string {
	var reasons []string
	for r := range s.Reasons {
		reasons = append(reasons, r)
	}
	slices.SortFunc(reasons, func(x, y string) int {
		if s.Reasons[x] != s.Reasons[y] {
			return map[bool]int{true: -1, false: 1}[s.Reasons[x] > s.Reasons[y]]
		}
		return strings.Compare(x, y)
	})
	return strings.Join(reasons, ", ")
}

// panelLines are the panel's title and as much of its text as there is room for.
func (m model) panelLines(room int) []string {
	lines := []string{lipgloss.NewStyle().Bold(true).Render(m.title), ""}
	if m.mode == waiting {
		return append(lines, "asking the agent …")
	}
	text := m.panelText()
	first := min(m.scroll, m.lastScroll())
	return append(lines, text[first:min(first+max(room-2, 0), len(text))]...)
}

func (m model) panelText() []string {
	text := strings.ReplaceAll(ansi.Strip(strings.TrimRight(m.panel, "\n")), "\t", "    ")
	return strings.Split(ansi.Wrap(text, m.width, ""), "\n")
}

// lastScroll is how far the panel's text goes off above at most.
func (m model) lastScroll() int { return max(len(m.panelText())-max(m.bodyHeight()-2, 1), 0) }

func (m model) keys() string {
	more := ""
	if m.mode != watching && m.lastScroll() > 0 {
		more = "   ↑↓ more"
	}
	switch m.mode {
	case asking:
		return "y do it   n leave it" + more
	case reading:
		return "any key: back" + more
	case waiting:
		return "esc back"
	}
	return "↑↓ select   a allow   d deny   e explain   s sort   q quit"
}
