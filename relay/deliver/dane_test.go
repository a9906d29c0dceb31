package deliver

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestDANEVerifies(t *testing.T) {
	plainSink := func(s *sink) { s.mode = Plain }
	for name, tc := range map[string]struct {
		set  func(*sink)
		tlsa func(c *x509.Certificate) string
		host string
		want bool
	}{
		"own key":               {nil, func(c *x509.Certificate) string { return record(3, 1, c.RawSubjectPublicKeyInfo) }, "other.example", true},
		"own certificate":       {nil, func(c *x509.Certificate) string { return record(3, 0, c.Raw) }, "other.example", true},
		"second record":         {nil, func(c *x509.Certificate) string { return record(3, 0, nil) + record(3, 0, c.Raw) }, "other.example", true},
		"another key":           {nil, func(*x509.Certificate) string { return record(3, 1, []byte("x")) }, "127.0.0.1", false},
		"authority":             {nil, func(c *x509.Certificate) string { return record(2, 1, c.RawSubjectPublicKeyInfo) }, "127.0.0.1", true},
		"authority, wrong name": {nil, func(c *x509.Certificate) string { return record(2, 1, c.RawSubjectPublicKeyInfo) }, "other.example", false},
		"TLS was stripped":      {plainSink, func(c *x509.Certificate) string { return record(3, 0, c.Raw) }, "127.0.0.1", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, tc.set)
			cert, err := x509.ParseCertificate(s.tls.Certificates[0].Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			h := s.hop(DANE)
			h.CA, h.Host, h.Addr, h.TLSA = "", tc.host, "127.0.0.1", tc.tlsa(cert)
			if err := h.Validate(); err != nil {
				t.Fatal(err)
			}
			r := newRig(t, Settings{Router: SmartHosts{h}, Hop: Backoff{time.Hour, time.Hour}}, nil)
			r.add("alice@example.net", text, "b@example.org")
			if tc.want {
				r.empty()
				if m := s.mails(); len(m) != 1 || !m[0].tls {
					t.Errorf("got %+v", m)
				}
				return
			}
			eventually(t, "a deferral", func() bool { return len(r.outcomes(Deferred)) == 1 })
			if len(s.mails()) != 0 {
				t.Error("it was delivered")
			}
		})
	}
}

func record(usage, selector int, what []byte) string {
	return fmt.Sprintf("%d %d 1 %x\n", usage, selector, sha256.Sum256(what))
}

func TestBadTLSA(t *testing.T) {
	for _, s := range []string{"", "3 1 1", "3 1 1 zz", "1 1 1 aa", "3 2 1 aa", "3 1 3 aa", "3 1 1 aabb\nx\n"} {
		if (Hop{Host: "mx.example", TLS: DANE, TLSA: s}).Validate() == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

func TestEncryptedTakesAnyCertificateButNoPlainText(t *testing.T) {
	s, plain := newSink(t, nil), newSink(t, func(s *sink) { s.mode = Plain })
	h, p := s.hop(Encrypted), plain.hop(Encrypted)
	h.Host, h.Addr = "other.example", "127.0.0.1"
	r := newRig(t, Settings{Router: SmartHosts{p, h}}, nil)
	r.add("alice@example.net", text, "b@example.org")
	r.empty()
	if m := s.mails(); len(m) != 1 || !m[0].tls || len(plain.mails()) != 0 {
		t.Errorf("got %+v, and in plain text %d", m, len(plain.mails()))
	}
	hop := r.outcomes(Delivered)[0].Hop
	if want := "other.example[127.0.0.1]:"; !strings.HasPrefix(hop, want) {
		t.Errorf("next hop is called %s", hop)
	}
}
