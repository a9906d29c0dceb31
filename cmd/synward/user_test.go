package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/account"
)

// accountBook is an agent that does nothing but keep accounts.
type accountBook struct {
	mu   sync.Mutex
	docs map[string]json.RawMessage
	rev  int
}

func (b *accountBook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/v1/accounts/")
	switch r.Method {
	case http.MethodGet:
		var all control.Accounts
		for n, d := range b.docs {
			all.Accounts = append(all.Accounts, control.Account{Name: n, Doc: d, ETag: `"1"`})
		}
		json.NewEncoder(w).Encode(all)
		return
	case http.MethodPost:
		var all control.Accounts
		if err := json.NewDecoder(r.Body).Decode(&all); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for _, a := range all.Accounts {
			if _, there := b.docs[a.Name]; there != (a.ETag != "") {
				w.WriteHeader(http.StatusConflict)
				return
			}
			b.docs[a.Name] = a.Doc
		}
		b.rev++
	case http.MethodPut:
		b.docs[name], _ = io.ReadAll(r.Body)
		b.rev++
	}
	json.NewEncoder(w).Encode(control.AccountChange{Changed: true})
}

func (b *accountBook) get(t *testing.T, name string) (a account.Account) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := json.Unmarshal(b.docs[name], &a); err != nil {
		t.Fatalf("account %s: %v", name, err)
	}
	return a
}

func withAccounts(t *testing.T) (shell, *accountBook) {
	b := &accountBook{docs: map[string]json.RawMessage{}}
	return serveControl(t, b), b
}

func TestUserLimits(t *testing.T) {
	s, book := withAccounts(t)
	if _, stderr, code := s.run("secret\n", "user", "add", "alice", "--to", "a.example,.b.example", "--not-to", "c.b.example", "--max-size", "500k", "--max-recipients", "5"); code != 0 {
		t.Fatal(stderr)
	}
	a := book.get(t, "alice")
	if fmt.Sprint(a.Domains, a.Denied, a.MaxSize, a.MaxRecipients) != "[a.example .b.example] [c.b.example] 512000 5" || !account.Verify(a.Hash, "secret") {
		t.Errorf("account is %+v", a)
	}
	if out := s.must("user", "list"); !strings.Contains(out, "to a.example,.b.example; not to c.b.example; 512000 bytes; 5 recipients") {
		t.Errorf("list:\n%s", out)
	}
	s.must("user", "set", "alice", "--to", "", "--max-size", "0", "--senders", "example.org")
	a = book.get(t, "alice")
	if fmt.Sprint(a.Domains, a.Denied, a.MaxSize, a.MaxRecipients, a.Senders) != "[] [c.b.example] 0 5 [example.org]" || !account.Verify(a.Hash, "secret") {
		t.Errorf("account is %+v", a)
	}
	if out := s.must("user", "set", "alice", "--max-recipients", "5"); !strings.Contains(out, "nothing to change") {
		t.Errorf("the same again: %s", out)
	}
	rev := book.rev
	s.must("user", "set", "alice", "--max-recipients", "6", "--dry-run")
	for _, bad := range [][]string{
		{"user", "set", "alice"}, {"user", "set", "alice", "--to", "a b"}, {"user", "set", "alice", "--max-size", "12"},
		{"user", "set", "alice", "--max-size", "x"}, {"user", "set", "alice", "--max-recipients", "-1"}, {"user", "set", "alice", "--senders", "@"},
	} {
		if _, stderr, code := s.run("", bad...); code != 2 || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: %d %q", bad, code, stderr)
		}
	}
	if book.rev != rev {
		t.Error("a dry run or a bad command has written")
	}
}

func TestQuotaCommands(t *testing.T) {
	s, book := withAccounts(t)
	if _, stderr, code := s.run("secret\n", "user", "add", "alice"); code != 0 {
		t.Fatal(stderr)
	}
	for _, c := range []struct{ set, want string }{
		{"messages-per-hour=10,recipients-per-day=50", "{10 0 0 50}"}, {"messages-per-hour=0", "{0 0 0 50}"}, {"none", "{0 0 0 0}"},
	} {
		s.must("user", "quota", "alice", "--set", c.set)
		if q := book.get(t, "alice").Quota; q == nil || fmt.Sprint(*q) != c.want {
			t.Errorf("%s sets %v, want %s", c.set, q, c.want)
		}
	}
	if s.must("user", "quota", "alice", "--set", "default"); book.get(t, "alice").Quota != nil {
		t.Error("default leaves a quota of his own")
	}
	for _, bad := range []string{"", "messages=5", "messages-per-hour", "messages-per-hour=-1", "messages-per-hour=x"} {
		if _, stderr, code := s.run("", "user", "quota", "alice", "--set", bad); code != 2 || strings.Count(stderr, "\n") != 1 {
			t.Errorf("--set %q: %d %q", bad, code, stderr)
		}
	}

	var asked []string
	s = serveControl(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.String())
		fmt.Fprint(w, `{"quotas":[{"user":"alice","limits":{"messages_per_hour":10},"used":{"messages_hour":10,"messages_day":12,"recipients_hour":0,"recipients_day":7},"over":"10 messages an hour","until":"2026-11-24T12:00:00Z"},{"source":"192.0.2.1/32"}]}`)
	}))
	out := s.must("user", "quota", "alice")
	for _, want := range []string{"user alice", "10 of 10", " 12 ", "used up until 2026-11-24", "source 192.0.2.1 "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	s.must("user", "quota", "alice", "--reset")
	s.must("user", "quota", "alice", "--reset", "--dry-run")
	s.must("relay", "quota")
	s.must("relay", "quota", "--source", "192.0.2.1", "--reset")
	want := "GET /v1/relay/quota?user=alice,POST /v1/relay/quota/reset?user=alice,GET /v1/relay/quota?user=alice,GET /v1/relay/quota?,POST /v1/relay/quota/reset?source=192.0.2.1"
	if got := strings.Join(asked, ","); got != want {
		t.Errorf("asked\n%s, want\n%s", got, want)
	}
	if _, _, code := s.run("", "relay", "quota", "--reset"); code != 2 {
		t.Errorf("reset of everything: exit status %d", code)
	}
}

func TestRelayDeniedCommand(t *testing.T) {
	when := time.Now().Add(-time.Minute)
	list := relay.DeniedList{Total: 9, Forgotten: 2, Denied: []relay.Denied{
		{Source: netip.MustParsePrefix("192.0.2.7/32"), User: "alice", Count: 1, First: when, Last: when, Port: 587, From: "x@evil.example", Reply: "550 5.7.1 no"},
		{Source: netip.MustParsePrefix("2001:db8::/64"), Count: 6, First: when, Last: when, Port: 25, Rcpt: "y\x1b@z.example", Reply: "550 5.7.1 no"},
	}}
	var asked string
	s := serveControl(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.String()
		json.NewEncoder(w).Encode(list)
	}))
	out, stderr, _ := s.run("", "relay", "denied")
	if asked != "/v1/relay/denied?by=time" || strings.Count(out, "\n") != 3 || !strings.Contains(stderr, "2 attempts") {
		t.Errorf("%s: %s%s", asked, out, stderr)
	}
	for _, want := range []string{"192.0.2.7 ", "alice", "x@evil.example", "2001:db8::/64", `y\x1b@z.example`, "<>"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	for _, args := range [][]string{{"--source", "192.0.2.0/24"}, {"--user", "alice"}, {"--top", "1"}} {
		if out := s.must(append([]string{"relay", "denied"}, args...)...); !strings.Contains(out, "alice") || strings.Contains(out, "2001:") {
			t.Errorf("%v:\n%s", args, out)
		}
	}
	if s.must("relay", "denied", "--top", "1"); asked != "/v1/relay/denied?by=count" {
		t.Errorf("--top asks for %s", asked)
	}
	if out := s.must("relay", "denied", "--top", "0"); strings.Count(out, "\n") != 3 {
		t.Errorf("--top 0:\n%s", out)
	}
	for flag, bad := range map[string]string{"--source": "here", "--top": "-1"} {
		if _, stderr, code := s.run("", "relay", "denied", flag+"="+bad); code != 2 || !strings.Contains(stderr, flag+": ") {
			t.Errorf("bad %s: exit status %d, %q", flag, code, stderr)
		}
	}
}

// TestUserScram: a credential for SCRAM is kept where the configuration wants
// one, goes with the password, and is shown to nobody.
func TestUserScram(t *testing.T) {
	s, book := withAccounts(t)
	conf := filepath.Join(t.TempDir(), "synward.toml")
	write := func(scram bool) {
		doc := fmt.Sprintf("[relay]\nscram = %v\n", scram)
		if err := os.WriteFile(conf, []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	as := func(stdin string, args ...string) string {
		t.Helper()
		out, stderr, code := s.run(stdin, append([]string{"--config", conf}, args...)...)
		if code != 0 {
			t.Fatalf("%v: %s", args, stderr)
		}
		return out
	}
	write(true)
	as("secret\n", "user", "add", "alice")
	a := book.get(t, "alice")
	if _, ok := a.ScramKeys(); !ok || !account.Verify(a.Hash, "secret") {
		t.Fatalf("alice is %+v", a)
	}
	if out := as("", "user", "list", "--json"); strings.Contains(out, "SCRAM-SHA-256") || !strings.Contains(out, `"scram": true`) {
		t.Errorf("list: %s", out)
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte("alice:$2y$04$"+strings.Repeat("a", 53)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	as("", "user", "import", "--replace", file)
	if a := book.get(t, "alice"); a.Scram != "" {
		t.Error("an imported password leaves the old one's credential")
	}
	as("other\n", "user", "passwd", "alice")
	if a := book.get(t, "alice"); a.Scram == "" {
		t.Error("passwd makes no credential")
	}
	write(false)
	as("third\n", "user", "passwd", "alice")
	if a := book.get(t, "alice"); a.Scram != "" {
		t.Error("a credential is kept that nobody asked for")
	}
}
