package supervise

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// pushTimeout bounds one PUT of settings. The admin socket exists before the
// child does: the request waits in its backlog until the child serves.
const pushTimeout = 15 * time.Second

// Push PUTs the settings as they are now, and returns once they are in force.
func (s *Supervisor) Push(ctx context.Context) error {
	s.pushing.Lock()
	defer s.pushing.Unlock()
	err := s.push(ctx)
	s.set(func(st *State) {
		st.Error = ""
		if err != nil {
			st.Error = err.Error()
		}
	})
	return err
}

func (s *Supervisor) push(ctx context.Context) error {
	body, err := s.o.Settings(ctx)
	if err != nil {
		return fmt.Errorf("settings of the relay: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://relay/v1/settings", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		return fmt.Errorf("hand settings to the relay: %w", err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if resp.StatusCode >= 300 {
		return fmt.Errorf("the relay refuses its settings: %s", strings.TrimSpace(string(text)))
	}
	return nil
}
