package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/relay/acme/acmetest"
)

func config(a *acmetest.Authority, kind string) Config {
	return Config{Directory: a.Directory, CAPEM: a.CAPEM, Email: "a@example.org", Challenge: kind, Hostname: "localhost"}
}

// running is a keeper at work, with a listener for its challenges.
type running struct {
	*Keeper
	port int
	stop func()
}

func run(t *testing.T, path, kind string) *running {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Keeper: New(Options{Path: path, Log: slog.New(slog.DiscardHandler), Now: time.Now}), port: l.Addr().(*net.TCPAddr).Port}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- r.Run(ctx) }()
	go func() { done <- r.Serve(ctx, kind, l) }()
	stopped := false
	r.stop = func() {
		if cancel(); stopped {
			return
		}
		stopped = true
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

func TestBothChallenges(t *testing.T) {
	for _, kind := range []string{HTTP01, TLSALPN01} {
		t.Run(kind, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "acme.json")
			r := run(t, path, kind)
			a := acmetest.New(t, r.port, 0)
			conf := config(a, kind)
			if err := conf.Validate(); err != nil {
				t.Fatal(err)
			}
			r.Configure(&conf)
			eventually(t, "a certificate", func() bool { return r.Certificate() != nil })
			cert := r.Certificate()
			if err := cert.Leaf.VerifyHostname("localhost"); err != nil {
				t.Error(err)
			}
			if s := r.Status(); s.Error != "" || !strings.HasPrefix(s.Issuer, "Pebble") || s.NotAfter.Before(time.Now()) {
				t.Errorf("status %+v", s)
			}
			if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("the file: %v, %v", fi.Mode(), err)
			}
			r.stop()

			// The next start has it at once, with the authority gone.
			a.Close()
			again := New(Options{Path: path, Log: slog.New(slog.DiscardHandler), Now: time.Now})
			again.Configure(&conf)
			if c := again.Certificate(); c == nil || !c.Leaf.Equal(cert.Leaf) {
				t.Error("the certificate has not been kept")
			}
			other := conf
			other.Hostname = "other.example"
			if again.Configure(&other); again.Certificate() != nil {
				t.Error("it is shown for another name")
			}
		})
	}
}

// TestRenewal: in its last third a certificate is replaced, under the account
// that there is.
func TestRenewal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "acme.json")
	r := run(t, path, HTTP01)
	conf := config(acmetest.New(t, r.port, 6), HTTP01) // seconds
	r.Configure(&conf)
	eventually(t, "a certificate", func() bool { return r.Certificate() != nil })
	first := r.Certificate()
	account := func() string {
		s, err := load(path)
		if err != nil {
			t.Fatal(err)
		}
		return s.AccountPEM
	}
	was := account()
	eventually(t, "another certificate", func() bool { return !r.Certificate().Leaf.Equal(first.Leaf) })
	if s := r.Status(); s.Error != "" || account() != was {
		t.Errorf("%+v, the same account: %v", s, account() == was)
	}
}

// TestRefusal: an error says whose, what and what to look at, in one line; what
// was kept stays in use.
func TestRefusal(t *testing.T) {
	r := run(t, filepath.Join(t.TempDir(), "acme.json"), HTTP01)
	wrong := run(t, filepath.Join(t.TempDir(), "acme.json"), HTTP01) // answers 404
	conf := config(acmetest.New(t, wrong.port, 0), HTTP01)
	r.Configure(&conf)
	eventually(t, "an error", func() bool { return r.Status().Error != "" })
	s := r.Status()
	for _, want := range []string{conf.Directory, "localhost", "port 80", "unauthorized"} {
		if !strings.Contains(s.Error, want) || strings.Contains(s.Error, "\n") {
			t.Errorf("no %s in %q", want, s.Error)
		}
	}
	if d := time.Until(s.Next); d < firstWait/2 || r.Certificate() != nil {
		t.Errorf("again in %v", d)
	}
	gone := conf
	gone.Directory = "https://127.0.0.1:1/dir"
	r.Configure(&gone)
	eventually(t, "another error", func() bool { return strings.Contains(r.Status().Error, "127.0.0.1:1") })
	if r.Configure(nil); r.Status() != nil {
		t.Error("there is a status of nothing")
	}
}

// TestStrangers: the listener has nothing for anybody but an authority.
func TestStrangers(t *testing.T) {
	r := run(t, filepath.Join(t.TempDir(), "acme.json"), HTTP01)
	for _, path := range []string{"/", challengeAt, challengeAt + "x", "/../spool/acme.json"} {
		resp, err := http.Get("http://localhost:" + strconv.Itoa(r.port) + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	s := run(t, filepath.Join(t.TempDir(), "acme.json"), TLSALPN01)
	if c, err := tls.Dial("tcp", "localhost:"+strconv.Itoa(s.port), &tls.Config{InsecureSkipVerify: true}); err == nil {
		c.Close()
		t.Error("a handshake without a challenge")
	}
}

func TestBadConfig(t *testing.T) {
	good := Config{Directory: "https://acme.example/dir", Challenge: HTTP01, Hostname: "a.example"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"directory": func(c *Config) { c.Directory = "http://acme.example/dir" },
		"challenge": func(c *Config) { c.Challenge = "dns-01" },
		"email":     func(c *Config) { c.Email = "x" },
		"ca":        func(c *Config) { c.CAPEM = "x" },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), name+":") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDamagedFile: what cannot be read is as nothing, and is no reason to stop.
func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "acme.json")
	for _, text := range []string{"", "{", `{"directory":"d","account_pem":"x","key_pem":"y","chain_pem":"z"}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		k := New(Options{Path: path, Log: slog.New(slog.DiscardHandler), Now: time.Now})
		k.Configure(&Config{Directory: "d", Hostname: "a.example"})
		if k.Certificate() != nil {
			t.Errorf("%q is a certificate", text)
		}
		if _, err := k.state.account("d"); err != nil {
			t.Error(err)
		}
	}
}
