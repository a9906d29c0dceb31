package relay

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/synward/synward/relay/account"
)

// goodConfig is the whole section.
const goodConfig = `
enabled = true
hostname = "mail.example.net"
listen = [{ port = 587, tls = "starttls" }, { port = 465, tls = "implicit", address = "192.0.2.1" }]
smarthost = [{ host = "smtp.example.org", user = "u", password_file = "/etc/synward/pw" }]
max_size = 1000000
max_recipients = 200
mx = { enabled = true, resolver = ["127.0.0.1", "192.0.2.53:5353"], no_ipv6 = true }
route = [{ domains = ["example.org", ".example.org"], mx = true }, { domains = ["in.example.net"], smarthost = [{ host = "10.0.0.1", tls = "none", forward = "xclient" }] }]
dkim = [{ domain = "example.net", selector = "s1", key = "/etc/synward/dkim.pem" }]
retry = { min = "30s", max = "2h", expire = "72h" }
limits = { sessions = 100, sessions_per_source = 10 }
`

func TestConfig(t *testing.T) {
	c := DefaultConfig()
	if err := toml.Unmarshal([]byte(goodConfig), &c); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if c.User != "synward-relay" || c.Spool != "/var/spool/synward" || time.Duration(c.Retry.Expire) != 72*time.Hour || len(c.Listen) != 2 {
		t.Errorf("%+v", c)
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("a relay that is off: %v", err)
	}
}

func TestBadConfig(t *testing.T) {
	for key, bad := range map[string]string{
		"relay.hostname":                   "hostname = ''",
		"relay.hostname ":                  "hostname = 'a b'",
		"relay.listen":                     "listen = []",
		"relay.listen[1].port":             "listen = [{ port = 25, tls = 'starttls' }, { tls = 'starttls' }]",
		"relay.listen[0].tls":              "listen = [{ port = 25, tls = 'maybe' }]",
		"relay.listen[0].address":          "listen = [{ port = 25, tls = 'starttls', address = 'here' }]",
		"relay.listen[1].port ":            "listen = [{ port = 25, tls = 'starttls' }, { port = 25, tls = 'implicit' }]",
		"relay.tls":                        "tls = { cert = '/x' }",
		"relay.acme.enabled":               "tls = { cert = '/x', key = '/y' }\nacme = { enabled = true, accept_terms = true }",
		"relay.acme.accept_terms":          "acme = { enabled = true }",
		"relay.acme.port":                  "acme = { enabled = true, accept_terms = true, port = 587 }",
		"relay.acme.address":               "acme = { enabled = true, accept_terms = true, address = 'here' }",
		"relay.acme.challenge":             "acme = { enabled = true, accept_terms = true, challenge = 'dns-01' }",
		"relay.acme.directory":             "acme = { enabled = true, accept_terms = true, directory = 'http://x' }",
		"relay.user":                       "user = 'root'",
		"relay.spool":                      "spool = 'here'",
		"relay.smarthost[0].host":          "smarthost = [{ host = 'a b' }]",
		"relay.smarthost[0].tls":           "smarthost = [{ host = 'a', tls = 'x' }]",
		"relay.smarthost[0].tls ":          "smarthost = [{ host = 'a', tls = 'none', user = 'u', password_file = '/x' }]",
		"relay.smarthost[0].forward":       "smarthost = [{ host = 'a', forward = 'x' }]",
		"relay.mx.resolver[0]":             "mx = { resolver = ['dns.example'] }",
		"relay.route[0].mx":                "route = [{ domains = ['a'] }]",
		"relay.route[0].mx ":               "route = [{ domains = ['a'], mx = true, smarthost = [{ host = 'a' }] }]",
		"relay.route[0].domains":           "route = [{ mx = true }]",
		"relay.route[0].domains[1]":        "route = [{ domains = ['a', 'b c'], mx = true }]",
		"relay.route[1].domains[0]":        "route = [{ domains = ['.a'], mx = true }, { domains = ['.A'], mx = true }]",
		"relay.route[0].smarthost[0].host": "route = [{ domains = ['a'], smarthost = [{ host = 'a b' }] }]",
		"relay.dkim[0].domain":             "dkim = [{ selector = 's', key = '/k' }]",
		"relay.dkim[0].selector":           "dkim = [{ domain = 'a', selector = 's s', key = '/k' }]",
		"relay.dkim[0].key":                "dkim = [{ domain = 'a', selector = 's' }]",
		"relay.smarthost[0].user":          "smarthost = [{ host = 'a', user = 'u' }]",
		"relay.max_size":                   "max_size = 10",
		"relay.max_recipients":             "max_recipients = 99",
		"relay.retry.min":                  "retry = { min = '3h', max = '2h' }",
		"relay.retry.max":                  "retry = { max = 5 }",
		"relay.limits.sessions_per_source": "limits = { sessions_per_source = -1 }",
	} {
		c := DefaultConfig()
		doc := "enabled = true\nhostname = 'mail.example.net'\n"
		if strings.HasPrefix(bad, "hostname") {
			doc = "enabled = true\n"
		}
		if err := toml.Unmarshal([]byte(doc+bad), &c); err != nil {
			t.Fatalf("%s: %v", bad, err)
		}
		err := c.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), strings.TrimSpace(key)+":") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want it to begin with %s:", bad, err, key)
		}
	}
}

func TestSettingsReadTheFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	own, err := selfSigned("mail.example.net", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]}))
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	c := DefaultConfig()
	c.Enabled, c.Hostname = true, "mail.example.net"
	c.TLS = TLSFiles{Cert: file("cert", cert), Key: file("key", key)}
	c.Smarthost = []SmarthostConfig{
		{Host: "smtp.example.org", User: "u", PasswordFile: file("pw", "geheim\n"), CA: file("ca", cert)},
		{Host: "10.0.0.1", TLS: TLSImplicit}, {Host: "10.0.0.2", TLS: TLSNone},
	}
	s, err := c.Settings([]account.Account{{Name: "alice", Hash: cheapHash("x")}})
	if err != nil {
		t.Fatal(err)
	}
	want := Smarthost{Host: "smtp.example.org", Port: 587, TLS: TLSRequired, CAPEM: cert, User: "u", Password: "geheim"}
	if s.Smarthosts[0] != want || s.Smarthosts[1].Port != 465 || s.Smarthosts[2].Port != 25 {
		t.Errorf("smart hosts are %+v", s.Smarthosts)
	}
	doc, _ := json.Marshal(s)
	var again Settings
	if err := json.Unmarshal(doc, &again); err != nil || again.Hash() != s.Hash() {
		t.Errorf("over JSON the hash changes: %v", err)
	}
	again.Accounts[0].Disabled = true
	if again.Hash() == s.Hash() {
		t.Error("other settings have the same hash")
	}
	for name, spoil := range map[string]func(*Config){
		"relay.tls.key: open ":                   func(c *Config) { c.TLS.Key = filepath.Join(dir, "none") },
		"relay: tls: ":                           func(c *Config) { c.TLS.Key = file("bad", "x") },
		"relay.smarthost[0].password_file: open": func(c *Config) { c.Smarthost[0].PasswordFile = dir + "/none" },
		"relay: smarthosts[0].ca: ":              func(c *Config) { c.Smarthost[0].CA = file("bad", "x") },
	} {
		bad := c
		bad.Smarthost = append([]SmarthostConfig(nil), c.Smarthost...)
		spoil(&bad)
		if _, err := bad.Settings(nil); err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%v, want it to begin with %q", err, name)
		}
	}
}

func TestEventsAreBounded(t *testing.T) {
	m := NewEvents(time.Now)
	for range kept + 100 {
		m.Add(Event{Kind: Accepted})
	}
	events, lost, _ := m.Since(10)
	if lost != 90 || len(events) != kept || events[0].Seq != 101 || events[kept-1].Seq != kept+100 {
		t.Errorf("lost %d, %d events from %d", lost, len(events), events[0].Seq)
	}
	events, lost, more := m.Since(m.Last())
	if lost != 0 || len(events) != 0 {
		t.Errorf("nothing is new, but %d events and %d lost", len(events), lost)
	}
	m.Add(Event{Kind: Refused})
	select {
	case <-more:
	default:
		t.Error("the reader is not woken")
	}
}
