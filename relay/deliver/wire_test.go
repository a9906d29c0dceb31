package deliver

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadReply(t *testing.T) {
	for in, want := range map[string]string{
		"250 2.0.0 queued as 1\r\n": "250 2.0.0 queued as 1",
		"250\r\n":                   "250",
		"550-5.1.1 no\r\n550-5.1.1 such\r\n550 x\r\n": "550 5.1.1 no such x",
		"550 4.1.1 code of another class\r\n":         "550 4.1.1 code of another class",
		"450 4.7.1 \x1b[31mred\r\n":                   "450 4.7.1 ?[31mred",
		"25 x\r\n":                                    "bad reply",
		"250_x\r\n":                                   "bad reply",
		"950 x\r\n":                                   "bad reply",
		"250-x\r\n251 y\r\n":                          "bad reply",
		strings.Repeat("250-x\r\n", 200):              "bad reply",
		"250 " + strings.Repeat("x", 5000) + "\r\n":   "bad reply",
		"250-x\r\n":                                   "EOF",
	} {
		rep, err := readReply(bufio.NewReaderSize(strings.NewReader(in), maxReplyLine))
		got := rep.String()
		if err != nil {
			got = err.Error()
		}
		if got != want && !(err != nil && strings.HasPrefix(got, want)) {
			t.Errorf("%.40q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzReadReply(f *testing.F) {
	f.Add([]byte("250-2.0.0 a\r\n250 2.0.0 b\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		rep, err := readReply(bufio.NewReaderSize(bytes.NewReader(in), maxReplyLine))
		if err != nil {
			return
		}
		if s := rep.String(); strings.ContainsAny(s, "\r\n\x00\x1b") || len(s) > maxReplyText+100 || rep.Code < 200 || rep.Code > 599 {
			t.Fatalf("%q gives %q", in, s)
		}
	})
}

// FuzzCopyDots: what goes out has CR and LF only in pairs, no NUL, no line that
// is a dot alone, and reads back as what went in; or it is refused.
func FuzzCopyDots(f *testing.F) {
	for _, s := range []string{"", ".", "a", ".\r\n..\r\n", "a\r", "a\n", "\r\n.\r\n", "a\x00", "\r\r\n", "x\r\n\n.\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		rest := bytes.ReplaceAll(in, []byte("\r\n"), nil)
		unclean := bytes.ContainsAny(rest, "\r\n\x00") || bytes.Contains(in, []byte("\r\r\n"))
		for _, r := range []io.Reader{bytes.NewReader(in), iotest.OneByteReader(bytes.NewReader(in)), iotest.HalfReader(bytes.NewReader(in))} {
			var out strings.Builder
			err := copyDots(&out, r, make([]byte, 16), false)
			if errors.Is(err, errUnclean) != unclean {
				t.Fatalf("%q: %v", in, err)
			}
			if err != nil {
				continue
			}
			want := string(in)
			if want != "" && !strings.HasSuffix(want, "\r\n") {
				want += "\r\n"
			}
			if got := undot(out.String()); got != want {
				t.Fatalf("%q goes out as %q", in, out.String())
			}
			if strings.Contains("\r\n"+out.String(), "\r\n.\r\n") {
				t.Fatalf("%q goes out with an early end: %q", in, out.String())
			}
		}
	})
}

func TestHopValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		h    Hop
		want string
	}{
		"good":                  {Hop{Host: "mx.example.net", User: "u"}, ""},
		"no host":               {Hop{}, "no host"},
		"bad port":              {Hop{Host: "h", Port: 70000}, "port 70000"},
		"bad mode":              {Hop{Host: "h", TLS: "always"}, `tls "always"`},
		"bad CA":                {Hop{Host: "h", CA: "nonsense"}, "no certificate"},
		"password without TLS":  {Hop{Host: "h", User: "u", TLS: Plain}, "a password needs"},
		"password, opportunism": {Hop{Host: "h", User: "u", TLS: Opportunistic}, "a password needs"},
	} {
		err := tc.h.Validate()
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for want, h := range map[string]Hop{
		"h:25": {Host: "h"}, "h:587": {Host: "h", User: "u"}, "h:465": {Host: "h", TLS: Implicit}, "[2001:db8::1]:2525": {Host: "2001:db8::1", Port: 2525},
	} {
		if got := h.Address(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
