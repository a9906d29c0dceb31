package dkim

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
)

const message = "Received: from x\r\n\tby y\r\nFrom: Alice <alice@Example.net>\r\nTo: bob@example.org\r\nSubject: folded\r\n subject\r\n" +
	"Message-ID: <1@example.net>\r\nContent-Type: text/plain\r\n\r\nbody  \r\n.\r\n..\r\n\r\n"

// check verifies a message with the records that were published.
func check(t *testing.T, msg string, records ...Record) []*dkim.Verification {
	t.Helper()
	list, err := dkim.VerifyWithOptions(strings.NewReader(msg), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		for _, r := range records {
			if r.Name == name {
				return []string{r.Text}, nil
			}
		}
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func generate(t *testing.T, kind, domain, selector string) (Key, Record) {
	t.Helper()
	k, err := Generate(kind)
	if err != nil {
		t.Fatal(err)
	}
	text, err := MarshalKey(k)
	if err != nil {
		t.Fatal(err)
	}
	if k, err = ParseKey(text); err != nil {
		t.Fatal(err)
	}
	rec, err := NewRecord(domain, selector, k)
	if err != nil {
		t.Fatal(err)
	}
	return Key{domain, selector, k}, rec
}

func TestSignaturesVerify(t *testing.T) {
	k1, r1 := generate(t, RSA, "example.net", "s1")
	k2, r2 := generate(t, Ed25519, "example.net", "s2")
	sig, err := NewSigner([]Key{k1, k2}).Sign(strings.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(sig, []byte("\r\n")) || strings.Contains(strings.ReplaceAll(string(sig), "\r\n", ""), "\n") {
		t.Errorf("bad line ends: %q", sig)
	}
	for name, tc := range map[string]struct {
		msg  string
		good bool
	}{
		"as it was":       {string(sig) + message, true},
		"traced":          {"Received: by z\r\n" + string(sig) + message, true},
		"white space":     {string(sig) + strings.Replace(message, "body  ", "body ", 1), true},
		"body":            {string(sig) + message + "more\r\n", false},
		"subject":         {string(sig) + strings.Replace(message, "folded", "forged", 1), false},
		"another From":    {"From: eve@example.net\r\n" + string(sig) + message, false},
		"another Subject": {"Subject: win\r\n" + string(sig) + message, false},
		"a Reply-To":      {"Reply-To: eve@example.com\r\n" + string(sig) + message, false},
	} {
		list := check(t, tc.msg, r1, r2)
		if len(list) != 2 {
			t.Fatalf("%s: %d signatures", name, len(list))
		}
		for _, v := range list {
			if (v.Err == nil) != tc.good || v.Domain != "example.net" {
				t.Errorf("%s: %s: %v", name, v.Domain, v.Err)
			}
		}
	}
}

func TestOnlyTheAuthorsDomainSigns(t *testing.T) {
	k, _ := generate(t, Ed25519, "example.net", "s")
	s := NewSigner([]Key{k})
	for name, msg := range map[string]string{
		"another domain":  strings.Replace(message, "Example.net", "example.com", 1),
		"below it":        strings.Replace(message, "Example.net", "a.example.net", 1),
		"two From fields": "From: a@example.net\r\n" + message,
		"two authors":     strings.Replace(message, "Alice <", "x@example.com, Alice <", 1),
		"no From":         "Subject: x\r\n\r\nbody\r\n",
		"nothing":         "",
	} {
		if sig, err := s.Sign(strings.NewReader(msg)); err != nil || len(sig) > 0 {
			t.Errorf("%s: %q %v", name, sig, err)
		}
	}
	broken := errors.New("disk")
	if _, err := s.Sign(&failing{strings.NewReader(message), broken}); !errors.Is(err, broken) {
		t.Errorf("a read error is told as %v", err)
	}
}

// failing reads half a message and breaks.
type failing struct {
	r   *strings.Reader
	err error
}

func (f *failing) Read(b []byte) (int, error) {
	if f.r.Len() < 20 {
		return 0, f.err
	}
	return f.r.Read(b[:min(len(b), 10)])
}

func TestRecordIsInShortStrings(t *testing.T) {
	_, rec := generate(t, RSA, "example.net", "s1")
	s := rec.String()
	if !strings.HasPrefix(s, `s1._domainkey.example.net. IN TXT ( "v=DKIM1; k=rsa; p=`) {
		t.Error(s)
	}
	joined := ""
	for i, part := range strings.Split(s, `"`) {
		if i%2 == 1 {
			if len(part) > 255 {
				t.Errorf("%d octets in a string", len(part))
			}
			joined += part
		}
	}
	if joined != rec.Text {
		t.Error("the strings are not the record")
	}
}

func TestBadKeys(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "no PEM": "hello", "not a key": "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n",
	} {
		if _, err := ParseKey([]byte(text)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := Generate("dsa"); err == nil {
		t.Error("a key of kind dsa")
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte(message))
	f.Fuzz(func(t *testing.T, b []byte) {
		head, err := readHeader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if d := fromDomain(head); d != strings.ToLower(d) {
			t.Errorf("domain %q", d)
		}
		headerKeys(head)
	})
}
