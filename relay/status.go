package relay

import (
	"fmt"
	"os"
	"time"

	"github.com/synward/synward/relay/acme"
)

// Status is the front's state, as `synward status` shows it.
type Status struct {
	PID          int       `json:"pid"`
	Since        time.Time `json:"since"`
	Ready        bool      `json:"ready"`    // settings are in force
	Sessions     int       `json:"sessions"` // open now
	Total        uint64    `json:"sessions_total"`
	Accepted     uint64    `json:"accepted"` // messages
	Refused      uint64    `json:"refused"`  // senders, recipients and messages
	AuthFailures uint64    `json:"auth_failures"`
	Unauthorized uint64    `json:"unauthorized"`
	SettingsHash string    `json:"settings_hash,omitempty"`
	SelfSigned   bool      `json:"self_signed,omitempty"` // the certificate is ours, made in memory
	Listeners    []string  `json:"listeners"`             // as in SYNWARD_LISTENERS

	Certificate *acme.Status `json:"certificate,omitempty"` // got by ACME
}

// Status returns the state of now.
func (s *Server) Status() Status {
	st := Status{
		PID: os.Getpid(), Since: s.began, Sessions: s.openSessions(), Total: s.count.sessions.Load(),
		Accepted: s.count.accepted.Load(), Refused: s.count.refused.Load(),
		AuthFailures: s.count.authFailures.Load(), Unauthorized: s.count.unauthorized.Load(),
		Listeners: []string{},
	}
	for _, l := range s.opt.Listeners {
		st.Listeners = append(st.Listeners, fmt.Sprintf("%d/%s", l.Port, l.TLS))
	}
	if c := s.now(); c != nil {
		st.Ready, st.SettingsHash, st.SelfSigned = true, c.hash, s.selfSigned(c)
		st.Certificate = s.certs(c.settings).Status()
	}
	return st
}

func (s *Server) openSessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.guards)
}
