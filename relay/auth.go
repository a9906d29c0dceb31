package relay

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"github.com/emersion/go-sasl"
	"github.com/synward/synward/relay/account"
)

// AuthMechanisms implements smtp.AuthSession. The guard lets AUTH through only
// under TLS.
func (s *session) AuthMechanisms() []string { return s.g.srv.now().mechanisms() }

// mechanisms are what AUTH offers. Not every account need have a credential for
// SCRAM; who has none there is told what a stranger is told.
func (c *compiled) mechanisms() []string {
	list := []string{sasl.Plain, sasl.Login}
	if c.settings.Scram {
		list = append([]string{mechScram}, list...)
	}
	return list
}

// Auth implements smtp.AuthSession.
func (s *session) Auth(mech string) (sasl.Server, error) {
	switch {
	case s.g.tls == nil: // the guard has refused it already; no way around it here either
		return nil, s.say(ansAuthNeedsTLS)
	case s.user != "":
		return nil, s.say(ansAuthTwice)
	case s.inMail:
		return nil, s.say(ansAuthInMail)
	}
	switch mech {
	case sasl.Plain:
		return &plainServer{login: s.login, bad: s.badAuthData}, nil
	case sasl.Login:
		return &loginServer{login: s.login, bad: s.badAuthData}, nil
	case mechScram:
		if s.g.srv.now().settings.Scram {
			return newScramServer(s)
		}
	}
	return nil, s.say(ansAuthMech)
}

func (s *session) badAuthData() error { return s.say(ansAuthBadData) }

// login verifies one login and counts the failures of the session.
func (s *session) login(name, password string) error {
	acc, err := s.g.srv.logins.check(s.g.srv.work, s.g.srv.now(), s.g.source, name, password)
	if err == nil {
		s.user = acc.Name
		return nil
	}
	return s.loginFailed(name, err)
}

// loginFailed reports a failure, and says as little as there is.
func (s *session) loginFailed(name string, err error) error {
	if account.ValidateName(name) != nil {
		name = "?" // it may be the password, in the wrong field
	}
	s.g.log.Warn("login failed", "user", name, "error", err)
	s.g.srv.count.authFailures.Add(1)
	s.event(Event{Kind: AuthFailure, User: name, Message: err.Error()})
	if s.g.tally.auth++; s.g.tally.auth >= maxAuth {
		return s.say(ansTooManyAuth)
	}
	switch {
	case errors.Is(err, errThrottled):
		return s.say(ansAuthThrottled)
	case errors.Is(err, errAuthBusy):
		return s.say(ansAuthBusy)
	}
	return s.say(ansAuthFailed)
}

// plainServer is PLAIN (RFC 4616). go-sasl's own gives an error of its own for
// bad data; this one keeps to our table and refuses to act for another user.
type plainServer struct {
	login func(name, password string) error
	bad   func() error
}

func (p *plainServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil {
		return []byte{}, false, nil
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 || len(parts[2]) == 0 || !utf8.Valid(response) {
		return nil, false, p.bad()
	}
	if len(parts[0]) > 0 && !bytes.EqualFold(parts[0], parts[1]) {
		return nil, false, p.bad()
	}
	return nil, true, p.login(string(parts[1]), string(parts[2]))
}

// loginServer is LOGIN (draft-murchison-sasl-login), of which go-sasl has the
// client alone. The name may come with the command or be asked for.
type loginServer struct {
	login   func(name, password string) error
	bad     func() error
	name    string
	hasName bool
	asked   bool
}

func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil && !l.asked:
		l.asked = true
		return []byte("Username:"), false, nil
	case len(response) == 0 || !utf8.Valid(response) || bytes.IndexByte(response, 0) >= 0:
		return nil, false, l.bad()
	case !l.hasName:
		l.name, l.hasName, l.asked = string(response), true, true
		return []byte("Password:"), false, nil
	}
	return nil, true, l.login(l.name, string(response))
}
