// Package top is the live view of synward top: what comes in by reason and by
// source, and keys to allow, deny or explain the selected source.
//
// It owns the screen and the keys. What it shows and does it has from a Desk;
// it never speaks to the agent itself, and nothing changes without a yes to the
// dry run's own words.
package top

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
)

// Look is what there is to see at one moment.
type Look struct {
	At       time.Time
	Head     []string // lines on the agent, the filter, connections, relay and queue
	Counters []control.Counter
	Sources  []control.SourceUse
	Caps     map[netip.Prefix]uint32 // on open connections, of the sources that have some; 0 = none
}

// Order is what sources are sorted by.
type Order string

// The orders, in the order in which the key goes through them.
const (
	ByAttempts Order = "attempts"
	ByDropped  Order = "dropped"
	ByOpen     Order = "open"
)

// Wish is a change that the operator has asked for.
type Wish struct {
	Action policy.Action
	Source netip.Prefix
	DryRun bool
}

// Desk is where the view has everything from. Its texts are for people, in
// lines; its errors are one line.
type Desk interface {
	Look(context.Context, Order) (Look, error)
	Explain(context.Context, netip.Addr) (string, error)
	Change(context.Context, Wish) (string, error)
}

// Options configure Run.
type Options struct {
	Desk  Desk
	Every time.Duration // between two looks
	In    io.Reader     // a terminal, as Out
	Out   io.Writer
}

// Run shows the view until the operator ends it or the context does (nil), and
// leaves the terminal as it was.
func Run(ctx context.Context, o Options) error {
	p := tea.NewProgram(newModel(ctx, o), tea.WithContext(ctx), tea.WithInput(o.In), tea.WithOutput(o.Out), tea.WithoutSignalHandler())
	if _, err := p.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("show the view: %w", err)
	}
	return nil
}
