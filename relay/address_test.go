package relay

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParsePath(t *testing.T) {
	long := strings.Repeat("a", 64)
	good := map[string]string{ // what the client writes → what we hand on
		"<a@example.org>":                   "a@example.org",
		"<>":                                "",
		"<a.b+c=d/e@example.org>":           "a.b+c=d/e@example.org",
		`<"a b"@example.org>`:               `"a b"@example.org`,
		`<"a"@example.org>`:                 "a@example.org",
		`<"a\"b\\c"@example.org>`:           `"a\"b\\c"@example.org`,
		`<"a@b"@example.org>`:               `"a@b"@example.org`,
		`<"x> NOTIFY=NEVER"@example.org>`:   `"x> NOTIFY=NEVER"@example.org`,
		`<"\a"@example.org>`:                "a@example.org",
		`<"a..b"@example.org>`:              `"a..b"@example.org`,
		"<a@[192.0.2.1]>":                   "a@[192.0.2.1]",
		"<a@[IPv6:2001:db8::1]>":            "a@[IPv6:2001:db8::1]",
		"<jürgen@müller.example>":           "jürgen@müller.example",
		"<用户@例子.example>":                   "用户@例子.example",
		"<" + long + "@example.org>":        long + "@example.org",
		"<a@xn--mller-kva.example>":         "a@xn--mller-kva.example",
		"<a@EXAMPLE.org>":                   "a@EXAMPLE.org",
		`<"` + long + `"@example.org>`:      long + "@example.org",
		"<a@a-b.example>":                   "a@a-b.example",
		"<!#$%&'*+-/=?^_`{|}~@example.org>": "!#$%&'*+-/=?^_`{|}~@example.org",
	}
	for in, want := range good {
		p, rest, err := parsePath(in + " X=Y")
		if err != nil || p.String() != want || rest != " X=Y" {
			t.Errorf("%s: %q, rest %q, %v", in, p.String(), rest, err)
		}
	}
	bad := []string{
		"", "a@example.org", "<a@example.org", "<@example.org>", "<a@>", "<a>", "<a@b@c>", "<a b@example.org>", "<a@exa mple.org>",
		"<.a@example.org>", "<a.@example.org>", "<a..b@example.org>", "<@x:a@example.org>", `<"a@example.org>`, `<"a"b@example.org>`,
		`<""@example.org>`, `<"a\"@example.org>`, "<a\x00@example.org>", "<\"a\x00\"@example.org>", "<\"a\r\nb\"@example.org>", "<a\r@example.org>",
		"<a@-x.example>", "<a@x-.example>", "<a@x..example>", "<a@x_y.example>", "<a@[192.0.2.256]>", "<a@[1.2.3]>", "<a@[IPv6:1.2.3.4]>",
		"<a@[IPv6:fe80::1%eth0]>", "<a@[x]>", "<a@[192.0.2.1>", "<a\xff@example.org>", "<a@ex\xffample.org>", "<\"a\xff\"@example.org>",
		"<a\u202eb@example.org>", "<a\u200bb@example.org>", "<a＠evil.example@example.org>", "<a@example\u3002org>", "<a@example.org\u00a0>",
		"<" + strings.Repeat("a", 65) + "@example.org>", "<a@" + strings.Repeat("a", 64) + ".org>", "<a@" + strings.Repeat("a.", 128) + "org>",
		`<"` + strings.Repeat(`\"`, 65) + `"@example.org>`, "<a(comment)@example.org>", "<a@example.org(comment)>", "<a,b@example.org>",
	}
	for _, in := range bad {
		if p, _, err := parsePath(in); err == nil {
			t.Errorf("%q passed as %q", in, p.String())
		}
	}
}

// FuzzParsePath: what passes comes out the same when it is read again, and
// holds nothing that ends a command or an address early.
func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"<a@b>", `<"a b\"c"@b.example>`, "<>", "<postmaster>", `<"v@e> N"@g>`, "<ü@ü>", "<a@[IPv6:::1]>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, rest, err := parsePath(s)
		if err != nil || p.domain == "" {
			return
		}
		out := p.String()
		for i := 0; i < len(out); i++ {
			if out[i] < ' ' || out[i] == 0x7f {
				t.Fatalf("%q passed as %q", s, out)
			}
		}
		if !utf8.ValidString(out) || len(out) > maxPath {
			t.Fatalf("%q passed as %q", s, out)
		}
		again, left, err := parsePath("<" + out + ">" + rest)
		if err != nil || again != p || left != rest {
			t.Fatalf("%q passed as %q, which reads as %+v, %q, %v", s, out, again, left, err)
		}
	})
}

// FuzzParseCommand: no line makes it panic, and what go-smtp gets to see is one
// line of ASCII from us with at most the parameters of the client.
func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{"MAIL FROM:<a@b> SIZE=1", "RCPT TO:<a@b> NOTIFY=NEVER", "EHLO x", "AUTH PLAIN AGEAYg==", "DATA", "", "STARTTLS", "BDAT 1 LAST", "MAIL FROM:<ü@b> SMTPUTF8"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		c, bad := parseCommand(line)
		if bad != ansNone {
			if table[bad].code < 400 {
				t.Fatalf("%q is refused with %v", line, table[bad])
			}
			return
		}
		for _, b := range c.forGoSMTP(line) {
			if b < ' ' || b == 0x7f {
				t.Fatalf("%q goes to go-smtp as %q", line, c.forGoSMTP(line))
			}
		}
	})
}
