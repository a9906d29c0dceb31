package relay

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/synward/synward/relay/quota"
)

// Quotas is what counts for the front; *quota.Book is one.
type Quotas interface {
	Look(key string, l quota.Limits, rcpts int) quota.Verdict
	Take(key string, l quota.Limits, rcpts int) (quota.Receipt, quota.Verdict)
	Return(quota.Receipt)
}

// What happens to a message that is over a quota.
const (
	OverRefuse = "refuse" // 452 with the time when there is room again
	OverHold   = "hold"   // accepted and held in the queue, for an operator to release
)

// QuotaConfig is what users and relaying sources may hand in, in the file and in
// Settings. An account may have limits of its own.
type QuotaConfig struct {
	User   quota.Limits `toml:"user" json:"user,omitzero"`
	Source quota.Limits `toml:"source" json:"source,omitzero"`
	Over   string       `toml:"over" json:"over,omitempty"` // refuse (default) | hold
}

func (q QuotaConfig) validate() error {
	if err := q.User.Validate(); err != nil {
		return fmt.Errorf("user.%w", err)
	}
	if err := q.Source.Validate(); err != nil {
		return fmt.Errorf("source.%w", err)
	}
	if q.Over != "" && q.Over != OverRefuse && q.Over != OverHold {
		return fmt.Errorf("over: %q is neither refuse nor hold", q.Over)
	}
	return nil
}

// The keys under which Quotas counts.
const (
	quotaUser   = "user "
	quotaSource = "source "
	quotaHeld   = "held "
)

// UserQuota returns the key of an account and the limits that hold for it now;
// false: there is no such account.
func (s *Server) UserQuota(name string) (key string, l quota.Limits, ok bool) {
	set := s.now()
	if set == nil {
		return "", l, false
	}
	acc, ok := set.accounts[name]
	if l = set.settings.Quota.User; acc.Quota != nil {
		l = *acc.Quota
	}
	return quotaUser + name, l, ok
}

// SourceQuota returns the key of a relaying source, which may be one address
// of it, and the limits that hold for it now.
func (s *Server) SourceQuota(source netip.Prefix) (key string, l quota.Limits) {
	if set := s.now(); set != nil {
		l = set.settings.Quota.Source
	}
	if source.IsSingleIP() {
		source = sourceKey(source.Addr().Unmap())
	}
	return quotaSource + source.String(), l
}

// quotaKey is who pays for the session's mail; "": nobody does, as with mail
// from strangers to relay domains.
func (s *session) quotaKey() (string, quota.Limits) {
	if s.g.srv.opt.Quotas == nil {
		return "", quota.Limits{}
	}
	a := s.ask(nil)
	switch {
	case a.account != nil:
		key, l, _ := s.g.srv.UserQuota(a.account.Name)
		return key, l
	case a.peer != nil:
		return s.g.srv.SourceQuota(sourceKey(s.g.source))
	}
	return "", quota.Limits{}
}

func (s *session) holds() bool { return s.g.srv.now().settings.Quota.Over == OverHold }

// lookQuota says early what takeQuota will say in the end.
func (s *session) lookQuota(rcpts int) quota.Verdict {
	key, l := s.quotaKey()
	if key == "" || s.holds() {
		return quota.Verdict{}
	}
	return s.g.srv.opt.Quotas.Look(key, l, rcpts)
}

// quotaTaken is what a message has been counted as.
type quotaTaken struct {
	receipt quota.Receipt
	held    bool
}

// quotaError is a message that is over a quota.
type quotaError struct{ quota.Verdict }

func (e quotaError) Error() string { return "over quota: " + e.String() }

// takeQuota counts the message. Where what is over a quota is held, as much
// again may be: a stolen password must not fill the queue either.
func (s *session) takeQuota() (quotaTaken, error) {
	key, l := s.quotaKey()
	if key == "" {
		return quotaTaken{}, nil
	}
	r, v := s.g.srv.opt.Quotas.Take(key, l, len(s.rcpts))
	if !v.Over {
		return quotaTaken{receipt: r}, nil
	}
	if !s.holds() {
		return quotaTaken{}, quotaError{v}
	}
	s.tellQuota(v)
	r, v = s.g.srv.opt.Quotas.Take(quotaHeld+key, l, len(s.rcpts))
	if v.Over {
		return quotaTaken{}, quotaError{v}
	}
	return quotaTaken{r, true}, nil
}

func (s *session) returnQuota(t quotaTaken) {
	if s.g.srv.opt.Quotas != nil {
		s.g.srv.opt.Quotas.Return(t.receipt)
	}
}

// refuseQuota names the limit and when there is room again.
func (s *session) refuseQuota(v quota.Verdict, rcpts []recipient) error {
	s.tellQuota(v)
	return s.refuse(ansQuota, rcpts, v.String(), v.Until.Format(time.RFC3339))
}

// tellQuota raises the event, once.
func (s *session) tellQuota(v quota.Verdict) {
	if !v.First {
		return
	}
	e := s.envelope(OverQuota, nil)
	e.Message = fmt.Sprintf("quota of %s is used up until %s", v, v.Until.Format(time.RFC3339))
	s.event(e)
	s.g.log.Warn("over quota", "user", s.user, "limit", v.String(), "until", v.Until)
}
