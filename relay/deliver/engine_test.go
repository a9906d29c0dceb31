package deliver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/synward/synward/relay/queue"
)

const text = "From: alice@example.net\r\nSubject: dots\r\n\r\n.\r\n..two\r\nplain\r\n.\r\n"

// rig is an engine at work on a queue of its own.
type rig struct {
	t    testing.TB
	q    *queue.Queue
	e    *Engine
	stop func() error

	mu   sync.Mutex
	seen []Outcome
}

func newRig(t testing.TB, s Settings, set func(*Engine)) *rig {
	t.Helper()
	q, err := queue.Open(t.TempDir(), queue.Options{SegmentSize: 1 << 20, InlineMax: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, q: q}
	r.e = New(Options{Queue: q, Observe: func(o Outcome) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen = append(r.seen, o)
	}})
	if s.Item == (Backoff{}) {
		s.Item = Backoff{5 * time.Millisecond, 20 * time.Millisecond}
	}
	if s.Hop == (Backoff{}) {
		s.Hop = s.Item
	}
	s.Hostname = "relay.example.net"
	r.e.Configure(s)
	if set != nil {
		set(r.e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.e.Run(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) add(from, body string, rcpts ...string) string {
	r.t.Helper()
	e := queue.Envelope{From: from, User: "alice"}
	for _, a := range rcpts {
		e.Rcpts = append(e.Rcpts, queue.Recipient{Addr: a})
	}
	return r.addEnvelope(e, body)
}

func (r *rig) addEnvelope(e queue.Envelope, body string) string {
	r.t.Helper()
	id, err := r.q.Add(context.Background(), e, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r *rig) outcomes(k Kind) []Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.seen), func(o Outcome) bool { return o.Kind != k })
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain for: " + what)
		}
	}
}

func (r *rig) empty() {
	r.t.Helper()
	eventually(r.t, "an empty queue", func() bool { return r.q.Stats().Items == 0 })
}

func TestDeliversUnderTLSWithLogin(t *testing.T) {
	s := newSink(t, nil)
	h := s.hop(Required)
	h.User, h.Password = "relay", "secret"
	if err := h.Validate(); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, Settings{Router: SmartHosts{h}, MaxConns: 1}, nil)
	e := queue.Envelope{From: "alice@example.net", EnvID: "a+b", Ret: "HDRS", EightBit: true, Rcpts: []queue.Recipient{
		{Addr: `"bob b"@example.org`, Notify: []string{"FAILURE", "DELAY"}, ORcpt: "rfc822;bob b@example.org"}}}
	for range 5 {
		r.addEnvelope(e, text)
	}
	r.empty()
	got := s.mails()
	if len(got) != 5 || s.conns != 1 {
		t.Fatalf("%d messages on %d connections", len(got), s.conns)
	}
	for _, m := range got {
		if m.from != fmt.Sprintf("MAIL FROM:<alice@example.net> SIZE=%d BODY=8BITMIME RET=HDRS ENVID=a+2Bb", len(text)) ||
			!slices.Equal(m.rcpts, []string{`RCPT TO:<"bob b"@example.org> NOTIFY=FAILURE,DELAY ORCPT=rfc822;bob+20b@example.org`}) ||
			undot(m.data) != text || !m.tls {
			t.Errorf("got %+v", m)
		}
	}
	if n := len(r.outcomes(Delivered)); n != 5 {
		t.Errorf("%d outcomes", n)
	}
	if !slices.Contains(s.lines, "AUTH PLAIN AHJlbGF5AHNlY3JldA==") {
		t.Errorf("no AUTH in %q", s.lines)
	}
}

func TestTLSModes(t *testing.T) {
	other, otherCA := selfSigned(t)
	_ = other
	for name, tc := range map[string]struct {
		set  func(*sink)
		hop  func(Hop) Hop
		want string // the cause of a deferral, "tls" or "plain"
	}{
		"required":                            {nil, nil, "tls"},
		"required, wrong certificate":         {nil, func(h Hop) Hop { h.CA = otherCA; return h }, "TLS handshake"},
		"required, wrong name":                {nil, func(h Hop) Hop { h.Host = "localhost"; return h }, "TLS handshake"},
		"required, not offered":               {func(s *sink) { s.mode = Plain }, nil, "offers no STARTTLS"},
		"required, stripped":                  {func(s *sink) { s.answer = refuse("STARTTLS", "454 4.7.0 not now") }, nil, "454 4.7.0"},
		"implicit":                            {func(s *sink) { s.mode = Implicit }, func(h Hop) Hop { h.TLS = Implicit; return h }, "tls"},
		"opportunistic":                       {nil, func(h Hop) Hop { h.TLS = Opportunistic; h.CA = ""; return h }, "tls"},
		"opportunistic, not offered":          {func(s *sink) { s.mode = Plain }, func(h Hop) Hop { h.TLS = Opportunistic; return h }, "plain"},
		"opportunistic, broken":               {func(s *sink) { s.tls.MaxVersion = tls10 }, func(h Hop) Hop { h.TLS = Opportunistic; return h }, "plain"},
		"none":                                {nil, func(h Hop) Hop { h.TLS = Plain; return h }, "plain"},
		"login refused":                       {func(s *sink) { s.answer = refuse("AUTH", "535 5.7.8 no") }, withUser, "535 5.7.8 no"},
		"a password and no verification":      {nil, func(h Hop) Hop { h = withUser(h); h.TLS = Opportunistic; return h }, "no password is sent"},
		"a password and no encryption":        {nil, func(h Hop) Hop { h = withUser(h); h.TLS = Plain; return h }, "no password is sent"},
		"more after the reply to STARTTLS":    {func(s *sink) { s.answer = refuse("STARTTLS", "220 go\n250 forged") }, nil, "in plain text after"},
		"a server that answers with nonsense": {func(s *sink) { s.answer = refuse("EHLO", "hello there") }, nil, "bad reply"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, tc.set)
			h := s.hop(Required)
			if tc.hop != nil {
				h = tc.hop(h)
			}
			r := newRig(t, Settings{Router: SmartHosts{h}}, nil)
			r.add("a@example.net", text, "b@example.org")
			if tc.want == "tls" || tc.want == "plain" {
				r.empty()
				if got := s.mails(); len(got) != 1 || got[0].tls != (tc.want == "tls") {
					t.Errorf("got %+v", got)
				}
				return
			}
			eventually(t, "a deferral", func() bool { return len(r.outcomes(Deferred)) > 0 })
			if got := r.outcomes(Deferred)[0].Reply; !strings.Contains(got, tc.want) {
				t.Errorf("got %q", got)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, l := range s.lines {
				if strings.HasPrefix(l, "MAIL") || strings.HasPrefix(l, "AUTH") && strings.HasPrefix(tc.want, "no password") {
					t.Errorf("sent %q", l)
				}
			}
		})
	}
}

const tls10 = 0x0301

func withUser(h Hop) Hop { h.User, h.Password = "u", "p"; return h }

func refuse(verb, reply string) func(*talk, string) string {
	return func(_ *talk, line string) string {
		if strings.HasPrefix(line, verb) {
			return reply
		}
		return ""
	}
}

// Each recipient ends in its own way, nobody gets the message twice, and the
// sender gets one report about whom it failed for.
func TestEachRecipientEndsInItsOwnWay(t *testing.T) {
	for _, ext := range [][]string{{"PIPELINING"}, {"8BITMIME"}} {
		later := 0
		s := newSink(t, func(s *sink) {
			s.ext = ext
			s.answer = func(_ *talk, line string) string {
				switch {
				case strings.HasPrefix(line, "RCPT TO:<never"):
					return "550-5.1.1 no such\n550 5.1.1 user here"
				case strings.HasPrefix(line, "RCPT TO:<later"):
					if later++; later < 3 {
						return "451 4.3.0 busy"
					}
				}
				return ""
			}
		})
		r := newRig(t, Settings{Router: SmartHosts{s.hop(Required)}}, nil)
		id := r.add("alice@example.net", text, "now@example.org", "never@example.org", "later@example.org")
		r.empty()
		counts := map[string]int{}
		var report string
		for _, m := range s.mails() {
			for _, rc := range m.rcpts {
				counts[rc]++
			}
			if strings.HasPrefix(m.from, "MAIL FROM:<>") {
				report = m.data
			}
		}
		want := map[string]int{"RCPT TO:<now@example.org>": 1, "RCPT TO:<later@example.org>": 1, "RCPT TO:<alice@example.net>": 1}
		if fmt.Sprint(counts) != fmt.Sprint(want) {
			t.Errorf("%v: got %v", ext, counts)
		}
		for _, part := range []string{
			"To: <alice@example.net>\r\n", "report-type=delivery-status", "Reporting-MTA: dns; relay.example.net\r\n",
			"Final-Recipient: rfc822; never@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n", "Remote-MTA: dns; 127.0.0.1\r\n",
			"Diagnostic-Code: smtp; 550 5.1.1 no such user here\r\n", "Content-Type: text/rfc822-headers\r\n", "Subject: dots\r\n",
		} {
			if !strings.Contains(report, part) {
				t.Errorf("no %q in the report:\n%s", part, report)
			}
		}
		if strings.Contains(report, "now@") || strings.Contains(report, "plain\r\n.") {
			t.Errorf("too much in the report:\n%s", report)
		}
		if b := r.outcomes(Bounced); len(b) != 1 || b[0].Rcpt != "never@example.org" || b[0].Item != id || b[0].User != "alice" {
			t.Errorf("got %+v", b)
		}
	}
}

func TestRefusals(t *testing.T) {
	everyone := func(a string) queue.Envelope {
		return queue.Envelope{From: "alice@example.net", Rcpts: []queue.Recipient{{Addr: a}}}
	}
	notify := everyone("b@example.org")
	notify.Rcpts[0].Notify = []string{"NEVER"}
	eight := everyone("b@example.org")
	eight.EightBit = true
	null := everyone("b@example.org")
	null.From = ""
	for name, tc := range map[string]struct {
		set    func(*sink)
		e      queue.Envelope
		body   string
		reply  string
		report bool
	}{
		"MAIL":             {func(s *sink) { s.answer = refuse("MAIL FROM:<alice", "550 5.7.1 not you") }, everyone("b@example.org"), text, "550 5.7.1 not you", true},
		"the only RCPT":    {func(s *sink) { s.answer = refuse("RCPT TO:<b", "550 5.1.1 who") }, everyone("b@example.org"), text, "550 5.1.1 who", true},
		"NOTIFY=NEVER":     {func(s *sink) { s.answer = refuse("RCPT TO:<b", "550 5.1.1 who") }, notify, text, "550 5.1.1 who", false},
		"null sender":      {func(s *sink) { s.answer = refuse("RCPT TO:<b", "550 5.1.1 who") }, null, text, "550 5.1.1 who", false},
		"too large":        {func(s *sink) { s.ext = []string{"SIZE 9000"} }, everyone("b@example.org"), text + strings.Repeat("x\r\n", 3000), "552 5.3.4", true},
		"bare LF":          {nil, everyone("b@example.org"), "a\r\n.\n\r\nMAIL FROM:<x>\r\n", "554 5.6.0", true},
		"bare CR":          {nil, everyone("b@example.org"), "a\r.\r\n", "554 5.6.0", true},
		"NUL":              {nil, everyone("b@example.org"), "a\x00\r\n", "554 5.6.0", true},
		"no SMTPUTF8":      {func(s *sink) { s.ext = nil }, everyone("jörg@example.org"), text, "553 5.6.7", true},
		"8 bit, not taken": {func(s *sink) { s.ext = nil }, eight, "ü\r\n", "554 5.6.3", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, tc.set)
			if name == "no SMTPUTF8" { // the report about it goes out another way
				r := newRig(t, Settings{Router: SmartHosts{s.hop(Required)}}, nil)
				r.addEnvelope(tc.e, tc.body)
				eventually(t, "a bounce", func() bool { return len(r.outcomes(Bounced)) > 0 })
				if got := r.outcomes(Bounced)[0].Reply; !strings.HasPrefix(got, tc.reply) {
					t.Errorf("got %q", got)
				}
				return
			}
			r := newRig(t, Settings{Router: SmartHosts{s.hop(Required)}}, nil)
			r.addEnvelope(tc.e, tc.body)
			r.empty()
			if got := r.outcomes(Bounced); len(got) != 1 || !strings.HasPrefix(got[0].Reply, tc.reply) {
				t.Errorf("got %+v", got)
			}
			got := s.mails()
			if len(got) != map[bool]int{true: 1}[tc.report] || tc.report && !strings.HasPrefix(got[0].from, "MAIL FROM:<>") {
				t.Errorf("arrived: %+v", got)
			}
		})
	}
}
