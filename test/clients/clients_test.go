package clients

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/account"
	"github.com/synward/synward/relay/queue"
)

const password = "correct horse"

// front is a running relay that keeps what it takes.
type front struct {
	q                  *queue.Queue
	starttls, implicit string // ports
	dir                string // for the clients' files
}

func start(t *testing.T) *front {
	t.Helper()
	q, err := queue.Open(t.TempDir(), queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	f := &front{q: q, dir: t.TempDir()}
	var ls []relay.Listener
	for _, l := range []struct {
		as   uint16
		tls  string
		port *string
	}{{587, relay.TLSStartTLS, &f.starttls}, {465, relay.TLSImplicit, &f.implicit}} {
		n, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, *l.port, _ = net.SplitHostPort(n.Addr().String())
		ls = append(ls, relay.Listener{Net: n, Port: l.as, TLS: l.tls})
	}
	hash, err := account.Hash(password)
	if err != nil {
		t.Fatal(err)
	}
	s := relay.New(relay.Options{Listeners: ls, Queue: q, Events: relay.NewEvents(time.Now), Log: slog.New(slog.DiscardHandler), DrainTime: time.Second})
	keys, err := account.Scram(password)
	if err != nil {
		t.Fatal(err)
	}
	set := relay.Settings{Hostname: "relay.example", Scram: true, Accounts: []account.Account{{Name: "alice", Hash: hash, Scram: keys}}}
	set.Limits.AuthDelay = relay.Duration(10 * time.Millisecond)
	if err := s.Apply(set); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	return f
}

// file writes a file for a client, and returns its path.
func (f *front) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a client, and says what it said.
func run(t *testing.T, stdin, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%v: install it, as .ci/run does", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// arrived is the one message in the queue, which has to be from and to whom the
// clients send, with text in its body.
func (f *front) arrived(t *testing.T, out string, err error, text string) {
	t.Helper()
	items := f.q.List()
	if err != nil || len(items) != 1 {
		t.Fatalf("%v, %d in the queue:\n%s", err, len(items), out)
	}
	it := items[0]
	r, err := f.q.Body(it.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(b), "\r\n\r\n")
	if it.From != "alice@example.org" || len(it.Rcpts) != 1 || it.Rcpts[0].Addr != "bob@example.com" || it.User != "alice" {
		t.Errorf("envelope %+v", it.Envelope)
	}
	if strings.TrimRight(body, "\r\n") != text || !strings.HasPrefix(string(b), "Received: from ") {
		t.Errorf("the message is %q", b)
	}
	if err := f.q.Delete(it.ID); err != nil {
		t.Fatal(err)
	}
}

const (
	text   = "Dear Bob,\r\n.\r\n..a dot, and no end\r\n\r\nYours"
	letter = "From: alice@example.org\r\nTo: bob@example.com\r\nSubject: hello\r\n\r\n" + text + "\r\n"
)

func TestCurl(t *testing.T) {
	f := start(t)
	mail := f.file(t, "mail", letter)
	for _, url := range []string{"smtp://127.0.0.1:" + f.starttls, "smtps://127.0.0.1:" + f.implicit} {
		args := []string{"-sS", "--insecure", "--ssl-reqd", url, "--mail-from", "alice@example.org", "--mail-rcpt", "bob@example.com", "--upload-file", mail}
		out, err := run(t, "", "curl", append(args, "--user", "alice:"+password)...)
		f.arrived(t, out, err, text)
		if out, err := run(t, "", "curl", append(args, "--user", "alice:wrong")...); err == nil || len(f.q.List()) != 0 {
			t.Errorf("a wrong password passes: %s", out)
		}
	}
}

func TestSwaks(t *testing.T) {
	f := start(t)
	for _, how := range [][]string{
		{"--port", f.starttls, "-tls", "-a", "PLAIN"}, {"--port", f.starttls, "-tls", "-a", "LOGIN"},
		{"--port", f.implicit, "-tlsc", "-a", "PLAIN"}, {"--port", f.starttls, "-tls", "-a", "LOGIN", "--pipeline"},
	} {
		args := append([]string{"--server", "127.0.0.1", "-au", "alice", "-ap", password, "-f", "alice@example.org", "-t", "bob@example.com", "--data", "Subject: x\\n\\nhello"}, how...)
		out, err := run(t, "", "swaks", args...)
		f.arrived(t, out, err, "hello")
	}
	// Without a login: the reply that our table has.
	out, err := run(t, "", "swaks", "--server", "127.0.0.1", "--port", f.starttls, "-tls", "-f", "alice@example.org", "-t", "bob@example.com")
	if err == nil || !strings.Contains(out, "530 5.7.0 authentication required") {
		t.Errorf("without a login: %v\n%s", err, out)
	}
}

func TestMsmtp(t *testing.T) {
	f := start(t)
	for port, starttls := range map[string]string{f.starttls: "on", f.implicit: "off"} {
		for _, auth := range []string{"plain", "scram-sha-256"} {
			const form = "account default\nhost 127.0.0.1\nport %s\ntls on\ntls_starttls %s\ntls_certcheck off\nauth %s\nuser alice\npassword %s\nfrom alice@example.org\n"
			conf := f.file(t, "msmtprc"+port+auth, fmt.Sprintf(form, port, starttls, auth, password))
			out, err := run(t, strings.ReplaceAll(letter, "\r\n", "\n"), "msmtp", "-C", conf, "bob@example.com")
			f.arrived(t, out, err, text)
			conf = f.file(t, "msmtprc"+port+auth, fmt.Sprintf(form, port, starttls, auth, "wrong"))
			if out, err := run(t, letter, "msmtp", "-C", conf, "bob@example.com"); err == nil || !strings.Contains(out, "535 5.7.8") {
				t.Errorf("a wrong password with %s: %v\n%s", auth, err, out)
			}
		}
	}
}

func TestPython(t *testing.T) {
	f := start(t)
	const script = `
import smtplib, ssl, sys
port, kind, mail, password = int(sys.argv[1]), sys.argv[2], open(sys.argv[3], "rb").read(), sys.argv[4]
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
if kind == "implicit":
    s = smtplib.SMTP_SSL("127.0.0.1", port, context=tls)
else:
    s = smtplib.SMTP("127.0.0.1", port)
    s.starttls(context=tls)
s.login("alice", password)
s.sendmail("alice@example.org", ["bob@example.com"], mail)
s.quit()
`
	mail := f.file(t, "mail", letter)
	for kind, port := range map[string]string{"starttls": f.starttls, "implicit": f.implicit} {
		out, err := run(t, "", "python3", "-c", script, port, kind, mail, password)
		f.arrived(t, out, err, text)
	}
}
