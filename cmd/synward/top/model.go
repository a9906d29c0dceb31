package top

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
)

// mode is what the lower part of the screen is for.
type mode int

const (
	watching mode = iota
	waiting       // for the desk's answer
	asking        // a dry run's words stand there: yes or no
	reading       // an answer stands there
)

// model is the whole state of the view. It is changed by Update alone, which
// the program calls for one message after the other.
type model struct {
	ctx   context.Context
	desk  Desk
	every time.Duration

	width, height int
	before, now   Look
	trouble       string // why the last look brought nothing
	order         Order
	selected      netip.Prefix

	mode   mode
	title  string // of the panel
	panel  string // text under it
	scroll int    // lines of it that have gone off above
	wish   Wish   // that is waiting for a yes
	asked  int    // numbers the questions, so that a late answer is known as one
}

func newModel(ctx context.Context, o Options) model {
	return model{ctx: ctx, desk: o.Desk, every: o.Every, order: ByAttempts, width: 80, height: 24}
}

// The messages that come back from the desk.
type (
	lookMsg struct {
		look  Look
		order Order
		err   error
	}
	tickMsg   struct{}
	answerMsg struct {
		to   int // the question's number
		text string
		then mode
		err  error
	}
)

func (m model) Init() tea.Cmd { return m.look() }

// look asks the desk for the state of now.
func (m model) look() tea.Cmd {
	order := m.order
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, 10*time.Second)
		defer cancel()
		l, err := m.desk.Look(ctx, order)
		return lookMsg{look: l, order: order, err: err}
	}
}

// Update takes one message: a key, the terminal's size, an answer of the desk.
func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tickMsg:
		return m, m.look()
	case lookMsg:
		return m.looked(msg), tea.Tick(m.every, func(time.Time) tea.Msg { return tickMsg{} })
	case answerMsg:
		if m.mode != waiting || msg.to != m.asked {
			return m, nil // nobody waits for it any more
		}
		m.mode, m.panel, m.scroll = msg.then, msg.text, 0
		if msg.err != nil {
			m.mode, m.panel = reading, problem(msg.err)
		}
	case tea.KeyPressMsg:
		return m.key(msg.String())
	}
	return m, nil
}

func (m model) looked(msg lookMsg) model {
	if msg.err != nil {
		m.trouble, m.before = problem(msg.err), Look{} // rates begin anew with the agent
		return m
	}
	m.before, m.now, m.trouble = m.now, msg.look, ""
	if m.index() < 0 && len(m.now.Sources) > 0 {
		m.selected = m.now.Sources[0].Source
	}
	return m
}

func problem(err error) string {
	if errors.Is(err, control.ErrDown) {
		return "agent not running: no rule changes, the filter goes on; start it with: systemctl start synward"
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// index is the place of the selected source, -1 where it is not there.
func (m model) index() int {
	return slices.IndexFunc(m.now.Sources, func(s control.SourceUse) bool { return s.Source == m.selected })
}

func (m model) key(key string) (tea.Model, tea.Cmd) {
	switch key {
	case "ctrl+c":
		return m, tea.Quit
	case "ctrl+z":
		return m, tea.Suspend
	}
	switch m.mode {
	case watching:
		return m.watchKey(key)
	case asking, reading:
		return m.panelKey(key)
	}
	if key == "esc" { // do not wait for the answer; a change is made all the same
		m.mode = watching
	}
	return m, nil
}

func (m model) watchKey(key string) (tea.Model, tea.Cmd) {
	switch key {
	case "q":
		return m, tea.Quit
	case "up", "k", "down", "j":
		if n := len(m.now.Sources); n > 0 {
			step := map[string]int{"up": -1, "k": -1}[key]
			if step == 0 {
				step = 1
			}
			m.selected = m.now.Sources[min(max(m.index()+step, 0), n-1)].Source
		}
	case "s":
		orders := []Order{ByAttempts, ByDropped, ByOpen}
		m.order = orders[(slices.Index(orders, m.order)+1)%len(orders)]
	case "a":
		return m.change(policy.Allow)
	case "d":
		return m.change(policy.Deny)
	case "e", "enter":
		return m.explain()
	}
	return m, nil
}

// panelKey moves in a panel's text, agrees to what it proposes, or leaves it.
func (m model) panelKey(key string) (tea.Model, tea.Cmd) {
	switch {
	case key == "up", key == "k":
		m.scroll = max(m.scroll-1, 0)
	case key == "down", key == "j":
		m.scroll = min(m.scroll+1, m.lastScroll())
	case m.mode == asking && key == "y":
		m.wish.DryRun = false
		return m.ask(reading)
	case m.mode == reading, key == "n", key == "esc", key == "q":
		m.mode = watching
	}
	return m, nil
}

// change asks what a change would do; only a yes to that makes it.
func (m model) change(action policy.Action) (tea.Model, tea.Cmd) {
	if m.index() < 0 {
		return m, nil
	}
	m.wish = Wish{Action: action, Source: m.selected, DryRun: true}
	m.title = string(action) + " add " + m.selected.String()
	return m.ask(asking)
}

// ask sends the wish to the desk.
func (m model) ask(then mode) (tea.Model, tea.Cmd) {
	wish := m.wish
	return m.wait(then, func() (string, error) { return m.desk.Change(m.ctx, wish) })
}

func (m model) explain() (tea.Model, tea.Cmd) {
	if m.index() < 0 {
		return m, nil
	}
	addr := m.selected.Addr()
	m.title = "explain " + addr.String()
	return m.wait(reading, func() (string, error) { return m.desk.Explain(m.ctx, addr) })
}

// wait shows that an answer is under way.
func (m model) wait(then mode, question func() (string, error)) (tea.Model, tea.Cmd) {
	m.mode, m.panel, m.scroll = waiting, "", 0
	m.asked++
	to := m.asked
	return m, func() tea.Msg {
		text, err := question()
		return answerMsg{to: to, text: text, then: then, err: err}
	}
}
