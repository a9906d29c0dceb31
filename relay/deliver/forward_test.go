package deliver

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/synward/synward/relay/queue"
)

func from(addr, user string) queue.Envelope {
	e := queue.Envelope{From: "alice@example.net", User: user, Helo: "pc+1.example", Rcpts: []queue.Recipient{{Addr: "b@example.org"}}}
	if addr != "" {
		e.Source = netip.MustParseAddr(addr)
	}
	return e
}

func commands(s *sink, verb string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.lines), func(l string) bool { return !strings.HasPrefix(l, verb) })
}

func TestXCLIENT(t *testing.T) {
	s := newSink(t, func(s *sink) {
		s.ext = append(s.ext, "XCLIENT NAME ADDR PROTO HELO LOGIN")
		s.answer = func(_ *talk, line string) string {
			if strings.HasPrefix(line, "XCLIENT") {
				return "220 again"
			}
			return ""
		}
	})
	h := s.hop(Required)
	h.Forward = ForwardXCLIENT
	r := newRig(t, Settings{Router: SmartHosts{h}, MaxConns: 1}, nil)
	for _, e := range []queue.Envelope{from("192.0.2.1", "alice"), from("192.0.2.1", "alice"), from("2001:db8::1", ""), from("", "")} {
		r.addEnvelope(e, text)
		r.empty()
	}
	want := []string{
		"XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.1 PROTO=ESMTP HELO=pc+2B1.example LOGIN=alice",
		"XCLIENT NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::1 PROTO=ESMTP HELO=pc+2B1.example LOGIN=[UNAVAILABLE]",
		"XCLIENT NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] PROTO=ESMTP HELO=pc+2B1.example LOGIN=[UNAVAILABLE]",
	}
	if got := commands(s, "XCLIENT"); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if len(s.mails()) != 4 || s.conns != 1 {
		t.Errorf("%d messages on %d connections", len(s.mails()), s.conns)
	}
}

// Without XCLIENT the server would take our address for the client's.
func TestXCLIENTIsNotLeftOut(t *testing.T) {
	s := newSink(t, nil)
	h := s.hop(Required)
	h.Forward = ForwardXCLIENT
	r := newRig(t, Settings{Router: SmartHosts{h}, Item: Backoff{time.Hour, time.Hour}}, nil)
	r.addEnvelope(from("192.0.2.1", "alice"), text)
	eventually(t, "a deferral", func() bool { return len(r.outcomes(Deferred)) == 1 })
	if len(s.mails()) != 0 || !strings.Contains(r.outcomes(Deferred)[0].Reply, "offers no XCLIENT") {
		t.Errorf("%+v", r.outcomes(Deferred))
	}
}

func TestPROXY(t *testing.T) {
	s := newSink(t, func(s *sink) {
		s.answer = func(_ *talk, line string) string {
			if strings.HasPrefix(line, "PROXY") {
				return "220 sink" // where a real one greets only now
			}
			return ""
		}
		s.silent = true
	})
	h := s.hop(Plain)
	h.Forward = ForwardPROXY
	r := newRig(t, Settings{Router: SmartHosts{h}, MaxConns: 1}, nil)
	for _, addr := range []string{"192.0.2.1", "2001:db8::1", ""} {
		r.addEnvelope(from(addr, ""), text)
		r.empty()
	}
	want := []string{"PROXY TCP4 192.0.2.1 0.0.0.0 0 25", "PROXY TCP6 2001:db8::1 :: 0 25", "PROXY UNKNOWN"}
	if got := commands(s, "PROXY"); !slices.Equal(got, want) || s.conns != 3 {
		t.Errorf("got %q on %d connections", got, s.conns)
	}
}

func TestSigns(t *testing.T) {
	s := newSink(t, nil)
	var broken atomic.Bool
	sign := func(r io.Reader) ([]byte, error) {
		b, err := io.ReadAll(r)
		if broken.Load() || err != nil {
			return nil, errors.Join(err, errors.New("no key today"))
		}
		if !bytes.Contains(b, []byte("Subject:")) {
			return nil, errors.New("this is not the message")
		}
		return []byte("Signature: x\r\n"), nil
	}
	r := newRig(t, Settings{Router: SmartHosts{s.hop(Required)}, Sign: sign}, nil)
	r.addEnvelope(from("192.0.2.1", "alice"), text)
	r.addEnvelope(from("192.0.2.1", ""), text)
	printer := from("192.0.2.1", "")
	printer.Trusted = true
	r.addEnvelope(printer, text)
	r.empty()
	signed := 0
	for _, m := range s.mails() {
		if strings.HasPrefix(m.data, "Signature: x\r\n") {
			signed++
		}
	}
	if signed != 2 {
		t.Errorf("%d are signed, the user's and the printer's should be and the stranger's not", signed)
	}
	broken.Store(true)
	r.addEnvelope(from("192.0.2.1", "alice"), text)
	eventually(t, "a deferral", func() bool { return len(r.outcomes(Deferred)) > 0 })
	if len(s.mails()) != 3 {
		t.Error("it went out unsigned")
	}
	broken.Store(false)
	r.empty()
	if len(s.mails()) != 4 {
		t.Errorf("%d arrived", len(s.mails()))
	}
}
