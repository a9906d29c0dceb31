package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/textproto"
	"os"
	"strings"
	"testing"

	"github.com/synward/synward/test/stage"
)

// dialogue speaks lines in plain text and wants each reply to begin as told.
func dialogue(t *testing.T, s *stage.Stage, port string, lines ...[2]string) (replies []string) {
	t.Helper()
	c, err := s.Client.Dial("", edge(port), soon)
	if err != nil {
		t.Fatal(err)
	}
	text := textproto.NewConn(c)
	defer text.Close()
	for i, l := range append([][2]string{{"", "220"}}, lines...) {
		if i > 0 {
			if err := text.PrintfLine("%s", l[0]); err != nil {
				t.Fatalf("%s: %v", l[0], err)
			}
		}
		code, reply, err := text.ReadResponse(0)
		if got := fmt.Sprintf("%d %s", code, reply); err != nil && code == 0 || !strings.HasPrefix(got, l[1]) {
			t.Errorf("port %s: %q is answered %q (%v), want %s", port, l[0], got, err, l[1])
		}
		replies = append(replies, reply)
	}
	return replies
}

// TestRelay is what a client of the relay meets.
func TestRelay(t *testing.T) {
	t.Parallel()
	s := set(t, true)
	must(t, s, "user", "add", "alice", "--senders", "edge.example")
	must(t, s, "allow", "add", stage.ClientPrefix, "2001:db8:c::/64")
	t.Run("mail arrives", func(t *testing.T) { mailArrives(t, s) })
	t.Run("refused", func(t *testing.T) { refused(t, s) })
	t.Run("nothing before TLS", func(t *testing.T) { beforeTLS(t, s) })
	t.Run("users come and go", func(t *testing.T) { users(t, s) })
	t.Run("unprivileged", func(t *testing.T) { unprivileged(t, s) })
	t.Run("outcomes", func(t *testing.T) {
		out := must(t, s, "events", "--relay")
		for _, kind := range []string{"accepted", "delivered", "auth-failure", "unauthorized"} {
			if !strings.Contains(out, kind) {
				t.Errorf("events --relay has no %s:\n%s", kind, out)
			}
		}
		if strings.Contains(out, password) || strings.Contains(s.Log(), password) {
			t.Error("a password is in the events or the log")
		}
	})
}

func mailArrives(t *testing.T, s *stage.Stage) {
	for _, to := range []string{edge("587"), edge("465"), edge("25"), edge6("587"), edge6("465")} {
		n := len(s.Sink.Mails())
		if err := s.Submit(s.Client, to, letter("to "+to)); err != nil {
			t.Errorf("%s: %v", to, err)
			continue
		}
		m, ok := s.Sink.Wait(n+1, soon)
		if !ok {
			t.Errorf("%s: nothing arrives", to)
			continue
		}
		if !m.TLS || m.From != "alice@edge.example" || strings.Join(m.To, " ") != "bob@hop.example" {
			t.Errorf("%s: arrives as %+v", to, m)
		}
		for _, want := range []string{"Received: from ", "by edge.example", "Subject: to " + to + "\r\n", "\r\nMessage-ID: <", "\r\nDate: ", "\r\n\r\nHello Bob.\r\n"} {
			if !strings.Contains(m.Data, want) {
				t.Errorf("%s: no %q in\n%s", to, want, m.Data)
			}
		}
	}
}

func refused(t *testing.T, s *stage.Stage) {
	n := len(s.Sink.Mails())
	nobody, wrong, unknown, other := letter("x"), letter("x"), letter("x"), letter("x")
	nobody.User = ""
	wrong.Password = "wrong"
	unknown.User = "mallory"
	other.From = "alice@elsewhere.example"
	for _, c := range []struct {
		port   string
		letter stage.Letter
		says   string
	}{
		{"587", nobody, "MAIL: 530"}, {"465", nobody, "MAIL: 530"}, {"25", nobody, "RCPT: 550"},
		{"587", wrong, "AUTH: 535"}, {"465", unknown, "AUTH: 535"}, {"587", other, "MAIL: 550"},
	} {
		err := s.Submit(s.Client, edge(c.port), c.letter)
		if err == nil || !strings.HasPrefix(err.Error(), c.says) {
			t.Errorf("port %s, user %q, from %s: %v, want %s", c.port, c.letter.User, c.letter.From, err, c.says)
		}
	}
	var queue []any
	if ask(t, s, &queue, "queue", "list"); len(queue) != 0 || len(s.Sink.Mails()) != n {
		t.Errorf("what was refused is in the queue, or has been sent: %v", queue)
	}
}

func beforeTLS(t *testing.T, s *stage.Stage) {
	login := base64.StdEncoding.EncodeToString([]byte("\x00alice\x00" + password))
	for _, port := range []string{"587", "25"} {
		mail := map[string]string{"587": "530", "25": "250"}[port]
		replies := dialogue(t, s, port,
			[2]string{"EHLO client.example", "250"},
			[2]string{"AUTH PLAIN " + login, "538"},
			[2]string{"AUTH LOGIN", "538"},
			[2]string{"MAIL FROM:<alice@edge.example>", mail},
			[2]string{"RCPT TO:<bob@hop.example>", "5"},
			[2]string{"QUIT", "221"},
		)
		if ehlo := replies[1]; strings.Contains(ehlo, "AUTH") || !strings.Contains(ehlo, "STARTTLS") {
			t.Errorf("port %s offers before TLS:\n%s", port, ehlo)
		}
	}
}

func users(t *testing.T, s *stage.Stage) {
	submit := func() error { return s.Submit(s.Client, edge("587"), letter("a user")) }
	must(t, s, "user", "disable", "alice")
	if err := submit(); err == nil || !strings.Contains(err.Error(), "535") {
		t.Errorf("a disabled user: %v", err)
	}
	must(t, s, "user", "enable", "alice")
	if r := s.Run("another password\n", "user", "passwd", "alice"); r.Code != 0 {
		t.Errorf("passwd: %+v", r)
	}
	if err := submit(); err == nil || !strings.Contains(err.Error(), "535") {
		t.Errorf("the old password: %v", err)
	}
	must(t, s, "user", "passwd", "alice")
	if err := submit(); err != nil {
		t.Errorf("the password again: %v", err)
	}
	if r := s.Run("x\n", "user", "add", "alice"); r.Code != 1 || !strings.Contains(r.Err, "passwd") {
		t.Errorf("a user twice: %+v", r)
	}
	must(t, s, "user", "add", "bob")
	must(t, s, "user", "remove", "bob")
	must(t, s, "user", "remove", "bob")
	if out := must(t, s, "user", "list", "--json"); strings.Contains(out, "argon2") || strings.Contains(out, "bob") {
		t.Errorf("user list: %s", out)
	}
}

// unprivileged looks at the relay's real process.
func unprivileged(t *testing.T, s *stage.Stage) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.RelayPID()))
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for line := range bytes.Lines(status) {
		key, value, _ := strings.Cut(string(line), ":")
		values[key] = strings.Join(strings.Fields(value), " ")
	}
	const none = "0000000000000000"
	for key, want := range map[string]string{
		"Name": "synward-relay", "Uid": "65534 65534 65534 65534", "Groups": "",
		"CapEff": none, "CapPrm": none, "CapInh": none, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2",
	} {
		if got, ok := values[key]; !ok || got != want {
			t.Errorf("the relay's %s is %q, want %q", key, got, want)
		}
	}
	// it may not speak to the agent either, nor read its key
	for _, secret := range []string{"/state/store.db", "/run/synward.sock", "/key.pem"} {
		fi, err := os.Stat(s.Dir + secret)
		if err != nil || fi.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s: %v, %v: others may use it", secret, fi.Mode(), err)
		}
	}
}

// TestNextHopDown: mail is taken, waits, is listed with the reason, and arrives.
func TestNextHopDown(t *testing.T) {
	t.Parallel()
	s := set(t, true)
	must(t, s, "user", "add", "alice")
	must(t, s, "allow", "add", stage.ClientPrefix)
	s.Sink.Down()
	for i := range 3 {
		if err := s.Submit(s.Client, edge("587"), letter(fmt.Sprint("wait ", i))); err != nil {
			t.Fatal(err)
		}
	}
	type item struct {
		ID, From  string
		Attempts  int
		LastError string `json:"last_error"`
		Rcpts     []struct{ Addr string }
	}
	var items []item
	eventually(t, "an item is deferred, and says why", func() bool {
		ask(t, s, &items, "queue", "list")
		for _, i := range items {
			if i.Attempts > 0 && strings.Contains(i.LastError, stage.HopAddr) {
				return true
			}
		}
		return false
	})
	if len(items) != 3 || items[0].From != "alice@edge.example" || items[0].Rcpts[0].Addr != "bob@hop.example" {
		t.Fatalf("the queue is %+v", items)
	}
	if out := must(t, s, "queue", "list"); !strings.Contains(out, "bob@hop.example") || !strings.Contains(out, "refused") {
		t.Errorf("queue list does not say what a person needs:\n%s", out)
	}
	var one item
	if ask(t, s, &one, "queue", "show", items[0].ID); one.ID != items[0].ID {
		t.Errorf("queue show: %+v", one)
	}
	if out := must(t, s, "status"); !strings.Contains(out, "3 items") {
		t.Errorf("status:\n%s", out)
	}
	if err := s.KillRelay(); err != nil { // what was accepted is on disk
		t.Fatal(err)
	}
	s.Sink.Up()
	eventually(t, "the relay is back", s.Ready)
	must(t, s, "queue", "retry", "all", "--dry-run")
	must(t, s, "queue", "retry", "all")
	if _, ok := s.Sink.Wait(3, soon); !ok {
		t.Errorf("%d of 3 mails arrive", len(s.Sink.Mails()))
	}
	eventually(t, "the queue is empty", func() bool { ask(t, s, &items, "queue", "list"); return len(items) == 0 })
	if n := len(s.Sink.Mails()); n != 3 {
		t.Errorf("%d mails arrive, want 3", n)
	}
}
