package relay

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"github.com/synward/synward/relay/account"
)

// The bounds on guessing. A source that has failed too often is turned away
// for ten minutes or more, without a hash being spent on it. An account that
// fails too often, from wherever, is never locked: each further try waits
// longer, up to maxWait, so its owner gets in, slowly at worst.
const (
	guessWindow    = 10 * time.Minute
	sourceGuesses  = 20
	accountGuesses = 10
	maxWait        = 5 * time.Second
	guessRoom      = 32 << 10 // keys remembered, twice

	loginAge  = 5 * time.Minute // of a verified login; at most twice that
	loginRoom = 4 << 10
	maxQueued = 256 // logins that wait for the CPU
)

var (
	errLogin     = errors.New("authentication failed")
	errThrottled = errors.New("too many failed logins from this source")
	errAuthBusy  = errors.New("too many logins at once")
)

// logins decides whether a name and a password go together. It bounds what
// guessing costs us: argon2 runs on at most one CPU each, and a login that was
// verified a moment ago is known by a keyed hash, at no cost.
type logins struct {
	key      [32]byte // of this process; makes the cache useless to a thief
	verified *recent[[32]byte, struct{}]
	failed   *recent[[32]byte, struct{}] // a client that repeats itself is no guesser
	bySource *recent[netip.Prefix, int]
	byName   *recent[string, int]
	slots    chan struct{}
	queue    chan struct{}
	verify   func(hash, password string) bool
	waste    func(password string)
}

func newLogins(now func() time.Time) *logins {
	l := &logins{
		verified: newRecent[[32]byte, struct{}](loginAge, loginRoom, now),
		failed:   newRecent[[32]byte, struct{}](loginAge, loginRoom, now),
		bySource: newRecent[netip.Prefix, int](guessWindow, guessRoom, now),
		byName:   newRecent[string, int](guessWindow, guessRoom, now),
		slots:    make(chan struct{}, max(1, runtime.GOMAXPROCS(0))),
		queue:    make(chan struct{}, maxQueued),
		verify:   account.Verify,
		waste:    account.Waste,
	}
	rand.Read(l.key[:])
	return l
}

// check returns the account that name and password belong to. An unknown name,
// a wrong password and a disabled account are one error after the same work.
// The same failure again, as from a mail program with last year's password,
// costs no hash and counts as no further guess: it must not lock its office out.
// A failure takes the same time whatever the account's hash costs.
func (l *logins) check(ctx context.Context, set *compiled, source netip.Addr, name, password string) (account.Account, error) {
	name = strings.ToLower(name)
	acc, known := set.accounts[name]
	mac := l.mac(name, acc.Hash, password)
	if _, ok := l.verified.get(mac); ok && known && !acc.Disabled {
		return acc, nil
	}
	src, key, begun := sourceKey(source), clip(name), time.Now()
	if n, _ := l.bySource.get(src); n >= sourceGuesses {
		return account.Account{}, errThrottled
	}
	if _, again := l.failed.get(mac); again {
		return account.Account{}, l.fail(ctx, set, begun)
	}
	tries, _ := l.byName.get(key)
	if err := sleep(ctx, accountWait(tries)); err != nil {
		return account.Account{}, errAuthBusy
	}
	ok, err := l.hash(ctx, acc, known, password)
	switch {
	case err != nil:
		return account.Account{}, err
	case ok && acc.Disabled:
		return account.Account{}, l.fail(ctx, set, begun)
	case !ok:
		l.bySource.update(src, inc)
		l.byName.update(key, inc)
		l.failed.update(mac, note)
		return account.Account{}, l.fail(ctx, set, begun)
	}
	l.verified.update(mac, note)
	return acc, nil
}

// fail waits before a failure is told, which slows a guesser down: until a
// fixed time after the try began, so that a hash of another kind does not show.
func (l *logins) fail(ctx context.Context, set *compiled, begun time.Time) error {
	if sleep(ctx, time.Duration(set.limits.AuthDelay)-time.Since(begun)) != nil {
		return errAuthBusy
	}
	return errLogin
}

// hash checks one password, for an unknown name too, with few at a time.
func (l *logins) hash(ctx context.Context, acc account.Account, known bool, password string) (bool, error) {
	select {
	case l.queue <- struct{}{}:
		defer func() { <-l.queue }()
	default:
		return false, errAuthBusy
	}
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-ctx.Done():
		return false, errAuthBusy
	}
	if !known {
		l.waste(password)
		return false, nil
	}
	return l.verify(acc.Hash, password), nil
}

// mac names a login. The stored hash is part of it: a new password ends it.
func (l *logins) mac(name, hash, password string) (sum [32]byte) {
	h := hmac.New(sha256.New, l.key[:])
	for _, s := range []string{name, hash, password} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	h.Sum(sum[:0])
	return sum
}

// accountWait doubles with each failure beyond the first ones.
func accountWait(tries int) time.Duration {
	if tries < accountGuesses {
		return 0
	}
	return min(maxWait, 100*time.Millisecond<<min(tries-accountGuesses, 10))
}

func inc(n int) int { return n + 1 }

func note(struct{}) struct{} { return struct{}{} }

// clip bounds a key that a stranger chose.
func clip(s string) string { return strings.Clone(s[:min(len(s), 128)]) }

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sourceKey is what counts as one source: an IPv4 address or an IPv6 /64.
func sourceKey(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}
