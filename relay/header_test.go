package relay

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var testTrace = trace{
	helo: "client.example", hostname: "relay.example", id: "s1.1", source: netip.MustParseAddr("192.0.2.1"),
	esmtp: true, rcpt: "b@example.com", at: time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC),
}

const testReceived = "Received: from client.example ([192.0.2.1])\r\n\tby relay.example (synward) with ESMTP id s1.1\r\n\tfor <b@example.com>;\r\n\tTue, 24 Nov 2026 15:00:00 +0000\r\n"

// prepared runs prepare on s and returns what follows our Received field.
func prepared(t *testing.T, s string, submission bool) string {
	t.Helper()
	r, _, err := prepare(iotest.HalfReader(strings.NewReader(s)), testTrace, submission)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := strings.CutPrefix(string(b), testReceived)
	if !ok {
		t.Fatalf("%q begins without our Received field: %q", s, b)
	}
	return rest
}

func TestPrepare(t *testing.T) {
	const ids = "Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@x>\r\n"
	for _, c := range []struct{ in, want string }{
		{ids + "Subject: x\r\n\r\nbody\r\n", ids + "Subject: x\r\n\r\nbody\r\n"},
		{ids + "Bcc: a@x\r\nSubject: x\r\n\r\nbcc: in the body\r\n", ids + "Subject: x\r\n\r\nbcc: in the body\r\n"},
		{ids + "bCC : a@x,\r\n b@x,\r\n\tc@x\r\nX: 1\r\n\tfolded\r\n\r\n", ids + "X: 1\r\n\tfolded\r\n\r\n"},
		{ids + "Resent-Bcc: a@x\r\n\r\n", ids + "\r\n"},
		{ids + "no field\r\nmore: text\r\n", ids + "\r\nno field\r\nmore: text\r\n"},
		{ids + " folded into the last\r\n\r\nx\r\n", ids + " folded into the last\r\n\r\nx\r\n"},
		{ids, ids + "\r\n"},
		{ids + "\r\n\r\n\r\n", ids + "\r\n\r\n\r\n"},
		{ids + ": no name\r\n", ids + "\r\n: no name\r\n"},
	} {
		if got := prepared(t, c.in, true); got != c.want {
			t.Errorf("%q\ngives %q\nwant  %q", c.in, got, c.want)
		}
	}
}

func TestPrepareAddsWhatIsMissing(t *testing.T) {
	for _, in := range []string{"", "\r\nbody\r\n", "hello\r\n", " hello\r\n"} {
		got := prepared(t, in, true)
		head, body, _ := strings.Cut(got, "\r\n\r\n")
		if !strings.HasPrefix(head, "Date: Tue, 24 Nov 2026 15:00:00 +0000\r\nMessage-ID: <20261124150000.") || !strings.HasSuffix(head, "@relay.example>") {
			t.Errorf("%q: header %q", in, head)
		}
		if body != strings.TrimPrefix(in, "\r\n") {
			t.Errorf("%q: body %q", in, body)
		}
		if got := prepared(t, in, false); strings.Contains(got, "Date") || strings.Contains(got, "Message-ID") {
			t.Errorf("%q: added to what is no submission: %q", in, got)
		}
	}
	if got := prepared(t, "Bcc: a@x\r\n\r\n", false); got != "Bcc: a@x\r\n\r\n" {
		t.Errorf("taken out of what is no submission: %q", got)
	}
}

func TestPrepareRefuses(t *testing.T) {
	hop := "Received: from a\r\n\tby b; x\r\n"
	for in, want := range map[string]error{
		strings.Repeat(hop, maxHops) + "\r\n":             nil,
		strings.Repeat(hop, maxHops+1) + "\r\n":           errLoop,
		"X: " + strings.Repeat("a", maxHeader+1):          errHeaderTooBig,
		strings.Repeat("X: y\r\n", maxHeader/6+10):        errHeaderTooBig,
		"X: y\r\n\r\n" + strings.Repeat("a", 1+maxHeader): nil,
	} {
		r, _, err := prepare(strings.NewReader(in), testTrace, true)
		if !errors.Is(err, want) {
			t.Errorf("%.40q…: %v, want %v", in, err, want)
		}
		if err == nil {
			io.Copy(io.Discard, r)
		}
	}
	broken := errors.New("broken")
	if _, _, err := prepare(io.MultiReader(strings.NewReader("X: y\r\n"), iotest.ErrReader(broken)), testTrace, true); !errors.Is(err, broken) {
		t.Errorf("a read error becomes %v", err)
	}
}

func TestReceivedTakesNothingOdd(t *testing.T) {
	for _, helo := range []string{"a b", "x\r\nEvil: y", "(comment", "ü.example", "x;y", ""} {
		tr := testTrace
		tr.helo = helo
		if got := tr.received(); !strings.HasPrefix(got, "Received: from [192.0.2.1]\r\n\tby ") {
			t.Errorf("helo %q gives %q", helo, got)
		}
	}
	tr := testTrace
	tr.source, tr.helo = netip.MustParseAddr("2001:db8::1"), "[192.0.2.9]"
	if got := tr.received(); !strings.Contains(got, "from [192.0.2.9] ([IPv6:2001:db8::1])") {
		t.Error(got)
	}
}

// FuzzPrepare: the body comes out as it went in, and no Bcc is left.
func FuzzPrepare(f *testing.F) {
	f.Add("A: b\r\nBcc: x\r\n y\r\n", "body\r\n")
	f.Fuzz(func(t *testing.T, head, body string) {
		if strings.Contains(head, "\r\n\r\n") || strings.HasPrefix(head, "\r\n") {
			return
		}
		r, _, err := prepare(strings.NewReader(head+"\r\n\r\n"+body), testTrace, true)
		if err != nil {
			return
		}
		b, err := io.ReadAll(r)
		if err != nil || !strings.HasSuffix(string(b), body) {
			t.Fatalf("%q: %v, %q", head, err, b)
		}
		fields, _, _ := readHeader(strings.NewReader(string(b)))
		for _, f := range splitFields(fields) {
			if strings.EqualFold(fieldName(f), "bcc") {
				t.Fatalf("%q: Bcc is left in %q", head, b)
			}
		}
	})
}
