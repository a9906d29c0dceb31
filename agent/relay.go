package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/store"
)

// relaySettings makes the relay's settings of accounts and entries as they are
// now.
func (a *Agent) relaySettings(ctx context.Context) ([]byte, error) {
	docs, _, err := store.Docs(ctx, a.store, accounts)
	if err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	for _, d := range docs {
		raw = append(raw, d.Data)
	}
	peers := a.peers()
	a.mu.Lock()
	settings := a.settings
	a.granted = peers
	a.mu.Unlock()
	return settings(Grants{Accounts: raw, Peers: peers})
}

// PushRelay has a running relay take over its settings, with the files that they
// name as these are now.
func (a *Agent) PushRelay(ctx context.Context) error {
	if a.relay == nil || !a.relay.State().Running {
		return nil // it is given them when it starts
	}
	return a.relay.Push(ctx)
}

// relayStatus is how the relay fares, with its own account of itself.
func (a *Agent) relayStatus(ctx context.Context) *control.RelayStatus {
	if a.relay == nil {
		return nil
	}
	s := a.relay.State()
	st := &control.RelayStatus{Running: s.Running, PID: s.PID, Since: s.Since, Adopted: s.Adopted, Restarts: s.Restarts, Error: s.Error}
	if !s.Running {
		return st
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	resp, err := a.askRelay(ctx, "/v1/status")
	if err != nil {
		st.Error = err.Error()
		return st
	}
	defer resp.Body.Close()
	own, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && json.Valid(own) {
		st.Own = own
	}
	return st
}

func (a *Agent) askRelay(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://relay"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.relay.Transport().RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("the relay does not answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("the relay answers %s with %s", path, resp.Status)
	}
	return resp, nil
}

// followRelay follows the relay's stream of session outcomes, again and again.
func (a *Agent) followRelay(ctx context.Context) error {
	for {
		err := a.readOutcomes(ctx)
		if ctx.Err() != nil {
			return nil
		}
		a.log.Debug("the relay's outcomes ended", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// maxOutcome bounds one outcome: the relay faces strangers, and what it says
// must not fill the agent's memory.
const maxOutcome = 16 << 10

func (a *Agent) readOutcomes(ctx context.Context) error {
	resp, err := a.askRelay(ctx, "/v1/events?follow=1")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 4096), maxOutcome)
	for lines.Scan() {
		a.outcome(lines.Bytes())
	}
	return errors.Join(lines.Err(), io.EOF)
}

// outcome keeps one. The relay's own log has a line of it already.
func (a *Agent) outcome(line []byte) {
	var o struct {
		Kind   string `json:"kind"`
		Source string `json:"source"`
		Item   string `json:"item"`
	}
	if err := json.Unmarshal(line, &o); err != nil {
		a.log.Warn("odd line from the relay", "error", err)
		return
	}
	a.outcomes.add(bytes.Clone(line))
	a.log.Debug("outcome", "kind", o.Kind, "source", o.Source, "item", o.Item)
}
