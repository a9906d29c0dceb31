package relay

import (
	"context"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/synward/synward/relay/account"
	"github.com/xdg-go/scram"
)

// mechScram is SCRAM-SHA-256 (RFC 5802, RFC 7677). The variant that binds to
// the channel is not offered.
const mechScram = "SCRAM-SHA-256"

// scramServer is the server side of one exchange. A name without a credential
// gets a salt all the same, always the same one, and fails at the end.
type scramServer struct {
	s     *session
	conv  *scram.ServerConversation
	acc   account.Account
	begun time.Time
	step  int
}

func newScramServer(s *session) (*scramServer, error) {
	v := &scramServer{s: s}
	srv, err := scram.SHA256.NewServer(v.lookup)
	if err != nil {
		return nil, err
	}
	v.conv = srv.NewConversation()
	return v, nil
}

// lookup finds the keys of a name.
func (v *scramServer) lookup(name string) (scram.StoredCredentials, error) {
	name = strings.ToLower(name)
	v.acc = v.s.g.srv.now().accounts[name]
	if keys, ok := v.acc.ScramKeys(); ok {
		return keys, nil
	}
	v.acc = account.Account{}
	return account.FakeScramKeys(v.s.g.srv.secret, name), nil
}

// Next implements sasl.Server.
func (v *scramServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil && v.step == 0 {
		return []byte{}, false, nil
	}
	v.step++
	switch v.step {
	case 1:
		return v.first(response)
	case 2:
		return v.final(response)
	}
	if len(response) > 0 { // the client has our proof, and nothing more to say
		return nil, false, v.s.badAuthData()
	}
	// What held as it began may not hold any more.
	if now := v.s.g.srv.now().accounts[v.acc.Name]; now.Scram != v.acc.Scram || now.Disabled {
		return nil, false, v.s.loginFailed(v.acc.Name, errLogin)
	}
	v.s.user = v.acc.Name
	return nil, true, nil
}

func (v *scramServer) first(response []byte) ([]byte, bool, error) {
	l, g := v.s.g.srv.logins, v.s.g
	v.begun = time.Now()
	if !utf8.Valid(response) {
		return nil, false, v.s.badAuthData()
	}
	challenge, err := v.conv.Step(string(response))
	if err != nil || v.other() {
		return nil, false, v.s.badAuthData()
	}
	if err := l.admit(g.srv.work, g.source, v.conv.Username()); err != nil {
		return nil, false, v.s.loginFailed(v.conv.Username(), err)
	}
	return []byte(challenge), false, nil
}

// other says whether the client wants to act for somebody else.
func (v *scramServer) other() bool {
	z := v.conv.AuthzID()
	return z != "" && !strings.EqualFold(z, v.conv.Username())
}

func (v *scramServer) final(response []byte) ([]byte, bool, error) {
	l, g := v.s.g.srv.logins, v.s.g
	proof, err := v.conv.Step(string(response))
	switch {
	case err != nil && proof == "": // not even in the form of one
		return nil, false, v.s.badAuthData()
	case err != nil || !v.conv.Valid() || v.acc.Name == "":
		return nil, false, v.s.loginFailed(v.conv.Username(), l.failedScram(g.srv.work, g.srv.now(), g.source, v.conv.Username(), v.begun))
	}
	return []byte(proof), false, nil
}

// admit turns away a source that has failed too often, and lets an account that
// has wait.
func (l *logins) admit(ctx context.Context, source netip.Addr, name string) error {
	if n, _ := l.bySource.get(sourceKey(source)); n >= sourceGuesses {
		return errThrottled
	}
	tries, _ := l.byName.get(clip(strings.ToLower(name)))
	if sleep(ctx, accountWait(tries)) != nil {
		return errAuthBusy
	}
	return nil
}

// failedScram books a wrong proof. That it was the same wrong password again
// cannot be seen: each try counts.
func (l *logins) failedScram(ctx context.Context, set *compiled, source netip.Addr, name string, begun time.Time) error {
	l.bySource.update(sourceKey(source), inc)
	l.byName.update(clip(strings.ToLower(name)), inc)
	return l.fail(ctx, set, begun)
}
