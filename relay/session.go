package relay

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/synward/synward/relay/account"
	"github.com/synward/synward/relay/queue"
)

// Queue is where accepted messages go. Add returns only once the message
// would outlive a power cut.
type Queue interface {
	Add(ctx context.Context, e queue.Envelope, body io.Reader) (id string, err error)
}

// session is what go-smtp calls. It holds the envelope, as go-smtp's own
// keeps the recipients of an earlier MAIL.
type session struct {
	g      *guard
	user   string // who logged in
	inMail bool   // between MAIL and the end of the message
	mail   command
	opts   smtp.MailOptions
	rcpts  []recipient
}

type recipient struct {
	path path
	opts smtp.RcptOptions
}

// drainGrace is how long the rest of a refused message may take.
const drainGrace = time.Minute

// say makes a the reply to the command in hand and returns it as go-smtp's
// error, or nil where it is a success.
func (s *session) say(a answer, args ...any) error {
	r := a.reply(args...)
	s.g.says = &r
	if r.code < 400 {
		return nil
	}
	return &smtp.SMTPError{Code: r.code, EnhancedCode: r.enh, Message: r.text}
}

// Mail implements smtp.Session. The sender is the guard's, not go-smtp's.
func (s *session) Mail(_ string, opts *smtp.MailOptions) error {
	if s.inMail {
		return s.say(ansNestedMail)
	}
	s.mail, s.opts = s.g.cmd, *opts
	if bad := decide(s.ask(nil)); bad != ansNone {
		return s.refuse(bad, nil)
	}
	if s.mail.size > s.bounds().maxSize {
		return s.refuse(ansTooBig, nil)
	}
	if v := s.lookQuota(1); v.Over {
		return s.refuseQuota(v, nil)
	}
	s.inMail = true
	return s.say(ansMailOK)
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(_ string, opts *smtp.RcptOptions) error {
	if !s.inMail {
		return s.say(ansMailFirst)
	}
	if len(s.rcpts) >= s.bounds().maxRcpts {
		return s.say(ansTooManyRcpts)
	}
	to := s.g.cmd.path
	if to.domain == "" { // <postmaster>, RFC 5321 section 4.5.1
		to.domain = s.g.srv.now().settings.Hostname
	}
	if bad := decide(s.ask(&to)); bad != ansNone {
		return s.refuse(bad, []recipient{{path: to}})
	}
	if v := s.lookQuota(len(s.rcpts) + 1); v.Over {
		return s.refuseQuota(v, []recipient{{path: to}})
	}
	s.rcpts = append(s.rcpts, recipient{to, *opts})
	return s.say(ansRcptOK)
}

// ask is the question of the session as it stands, put to the settings of now.
func (s *session) ask(rcpt *path) ask {
	set := s.g.srv.now()
	a := ask{
		submission: s.g.port != 25, tls: s.g.tls != nil, utf8: s.mail.utf8,
		from: s.mail.path, rcpt: rcpt, domains: func(d string) bool { return account.InDomains(set.settings.RelayDomains, d) },
	}
	if acc, ok := set.accounts[s.user]; ok && s.user != "" {
		a.account = &acc
	}
	if p, ok := set.peer(s.g.source, s.g.port); ok {
		a.peer = &p
	}
	return a
}

// bounds are what one message of the session may have.
type bounds struct {
	maxSize  int64 // bytes
	maxRcpts int
}

// bounds are the relay's, or the account's own where these are lower.
func (s *session) bounds() bounds {
	set := s.g.srv.now()
	b := bounds{set.limits.MaxSize, set.limits.MaxRecipients}
	if acc, ok := set.accounts[s.user]; ok && s.user != "" {
		if acc.MaxSize > 0 {
			b.maxSize = min(b.maxSize, acc.MaxSize)
		}
		if acc.MaxRecipients > 0 {
			b.maxRcpts = min(b.maxRcpts, acc.MaxRecipients)
		}
	}
	return b
}

// refuse says why, and reports what was an attempt.
func (s *session) refuse(bad answer, rcpts []recipient, args ...any) error {
	err := s.say(bad, args...)
	e := s.envelope(Refused, rcpts)
	e.Reply = s.g.says.String()
	if unauthorized(bad) {
		e.Kind = Unauthorized
		s.g.srv.count.unauthorized.Add(1)
		s.g.srv.denials.add(s, e)
	}
	s.g.srv.count.refused.Add(1)
	s.g.tally.refused++
	s.event(e)
	s.g.log.Info("refused", "user", s.user, "from", e.From, "rcpt", e.Rcpt, "reply", e.Reply)
	return err
}

// Data implements smtp.Session. It reads the message from the guard, not from
// go-smtp, and returns with the message either read to its end or the session
// closing.
func (s *session) Data(io.Reader) error {
	g, limits := s.g, s.g.srv.now().limits
	buf := g.srv.buffers.Get().(*[]byte)
	defer g.srv.buffers.Put(buf)
	b := newBody(g, g.in[g.pos:], *buf, s.bounds().maxSize, time.Duration(limits.Command))
	g.in, g.pos = nil, 0

	id, held, err := s.store(b)
	if err == nil && !b.done {
		err = errors.New("queue took a message without reading it whole")
	}
	if b.err != nil {
		err = b.err // the cause, however the queue has put it
	}
	if !b.done && b.drain(drainGrace) != nil {
		g.closing = true
	}
	g.in = append(g.in, b.rest()...)
	if err != nil {
		return s.refuseMessage(b, err)
	}
	now := time.Now()
	g.tally.accepted(now)
	g.srv.count.accepted.Add(1)
	e := s.envelope(Accepted, s.rcpts)
	e.Item, e.Size = id, b.n
	if held {
		e.Message = "held for release: over quota"
	}
	s.event(e)
	g.log.Info("accepted", "item", id, "user", s.user, "from", e.From, "rcpts", e.Rcpts, "size", b.n)
	if held {
		return s.say(ansHeld, id)
	}
	return s.say(ansQueued, id)
}

// store decides once more, now about the whole envelope, and hands the message
// to the queue.
func (s *session) store(b *body) (id string, held bool, err error) {
	if len(s.rcpts) == 0 {
		return "", false, answerError(ansRcptFirst)
	}
	for i := range s.rcpts {
		if bad := decide(s.ask(&s.rcpts[i].path)); bad != ansNone {
			return "", false, answerError(bad)
		}
	}
	took, err := s.takeQuota()
	if err != nil {
		return "", false, err
	}
	ask := s.ask(nil)
	msg, ascii, err := prepare(b, s.trace(), ask.account != nil || ask.peer != nil)
	if err == nil {
		e := s.toQueue()
		// Some clients ask for SMTPUTF8 whenever it is offered. To pass that on would
		// bounce plain mail at hops without it; who is addressed is seen there.
		e.UTF8, e.Hold = s.mail.utf8 && !ascii, took.held
		e.Trusted = ask.peer != nil
		id, err = s.g.srv.queue.Add(s.g.srv.work, e, msg)
	}
	if err != nil {
		s.returnQuota(took)
	}
	return id, took.held, err
}

// answerError is a refusal that has its answer already.
type answerError answer

func (e answerError) Error() string { return answer(e).reply().String() }

// refuseMessage turns what stopped a message into a reply. What is wrong with
// the message itself counts before what the queue made of it.
func (s *session) refuseMessage(b *body, err error) error {
	var own answerError
	var over quotaError
	a := ansQueueFailed
	switch {
	case errors.Is(err, errCut):
		a = ansReadFailed
	case errors.As(err, &own):
		a = answer(own)
	case errors.As(err, &over):
		return s.refuseQuota(over.Verdict, s.rcpts)
	case errors.Is(err, errTooBig):
		a = ansTooBig
	case errors.Is(err, errContent):
		a = ansBadContent
	case errors.Is(err, errHeaderTooBig):
		a = ansHeaderTooBig
	case errors.Is(err, errLoop):
		a = ansLoop
	case errors.Is(err, queue.ErrFull):
		a = ansQueueFull
	}
	s.g.log.Warn("message refused", "user", s.user, "from", s.mail.path.String(), "size", b.n, "error", err)
	return s.refuse(a, s.rcpts)
}

// toQueue is the envelope as the queue keeps it.
func (s *session) toQueue() queue.Envelope {
	e := queue.Envelope{
		From: s.mail.path.String(), User: s.user, Source: s.g.source, Session: s.g.id,
		EnvID: s.opts.EnvelopeID, Ret: string(s.opts.Return),
		EightBit: s.opts.Body == smtp.Body8BitMIME, Helo: s.g.helo,
	}
	for _, r := range s.rcpts {
		q := queue.Recipient{Addr: r.path.String()}
		for _, n := range r.opts.Notify {
			q.Notify = append(q.Notify, string(n))
		}
		if r.opts.OriginalRecipient != "" {
			q.ORcpt = string(r.opts.OriginalRecipientType) + ";" + r.opts.OriginalRecipient
		}
		e.Rcpts = append(e.Rcpts, q)
	}
	return e
}

// trace is the session as the Received field tells it.
func (s *session) trace() trace {
	t := trace{
		helo: s.g.helo, hostname: s.g.srv.now().settings.Hostname, id: s.g.nextTrace(),
		source: s.g.source, auth: s.user != "", utf8: s.mail.utf8, esmtp: s.g.esmtp, at: time.Now(),
	}
	if s.g.tls != nil {
		state := s.g.tls.ConnectionState()
		t.tls = &state
	}
	if len(s.rcpts) == 1 {
		t.rcpt = s.rcpts[0].path.String()
	}
	return t
}

// envelope is the event of this transaction.
func (s *session) envelope(kind string, rcpts []recipient) Event {
	e := Event{Kind: kind, User: s.user, From: s.mail.path.String(), Rcpts: len(rcpts)}
	for _, r := range rcpts[:min(len(rcpts), maxEventRcpts)] {
		e.Rcpt = append(e.Rcpt, r.path.String())
	}
	return e
}

func (s *session) event(e Event) {
	e.Session, e.Source, e.Port = s.g.id, s.g.source.String(), s.g.port
	s.g.srv.events.Add(e)
}

// Reset implements smtp.Session.
func (s *session) Reset() {
	s.inMail, s.mail, s.opts, s.rcpts = false, command{}, smtp.MailOptions{}, nil
}

// forget ends whatever was agreed in plain text, as TLS begins.
func (s *session) forget() {
	s.Reset()
	s.user = ""
}

// Logout implements smtp.Session.
func (s *session) Logout() error { return nil }
