package agent

import (
	"context"
	"errors"
	"net/http"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
)

// errNoKeeper is of an agent without a keeper.
var errNoKeeper = errors.New("this agent keeps no names and feeds")

// keeper is a task that keeps the entries of names and feeds.
type keeper interface {
	// Subjects are those that are in force.
	Subjects(ctx context.Context, a *Agent) ([]policy.Subject, error)
	// Prepare asks for those of a whole policy that are not in force yet.
	Prepare(ctx context.Context, a *Agent, wanted []policy.Subject, yes bool) (Prepared, error)
}

// Prepared are the names and feeds of a whole policy, with what they stand for.
type Prepared struct {
	// Plan adds to an update what makes these the only ones in force. It says
	// how many entries are as wished already.
	Plan     func(now *policy.Set, u *Update) (unchanged int, err error)
	Done     func() // to be called once that is in force
	Warnings []string
}

func (a *Agent) keeper() keeper {
	for _, t := range a.tasks {
		if k, ok := t.(keeper); ok {
			return k
		}
	}
	return nil
}

// subjects are the names and feeds in force.
func (a *Agent) subjects(ctx context.Context) ([]policy.Subject, error) {
	if k := a.keeper(); k != nil {
		return k.Subjects(ctx, a)
	}
	return nil, nil
}

// prepare gets ready to make names and feeds the only ones in force.
func (a *Agent) prepare(ctx context.Context, wanted []policy.Subject, yes bool) (Prepared, error) {
	if k := a.keeper(); k != nil {
		return k.Prepare(ctx, a, wanted, yes)
	}
	for _, s := range wanted {
		return Prepared{}, control.Errorf(http.StatusBadRequest, "%w; nothing changed", s.Fail(errNoKeeper))
	}
	return Prepared{
		Plan: func(*policy.Set, *Update) (int, error) { return 0, nil },
		Done: func() {},
	}, nil
}
