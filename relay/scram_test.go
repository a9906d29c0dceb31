package relay

import (
	"encoding/base64"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/relay/account"
	"github.com/xdg-go/scram"
)

// scramSettings are testSettings where alice and gone may use SCRAM, at a price
// that a test can pay.
func scramSettings(t testing.TB) Settings {
	t.Helper()
	set := testSettings()
	set.Scram = true
	for i, a := range set.Accounts {
		if a.Name != "bob" {
			set.Accounts[i].Scram = cheapScram(t, "secret")
		}
	}
	return set
}

func cheapScram(t testing.TB, password string) string {
	t.Helper()
	c, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "0123456789abcdef", Iters: 4096})
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	return "SCRAM-SHA-256$4096:" + b64([]byte(k.Salt)) + "$" + b64(k.StoredKey) + ":" + b64(k.ServerKey)
}

// scramLogin is the client's side, with a client that is not ours. It returns
// the last reply and the server-first message.
func (d *dialogue) scramLogin(user, password, authz string) (reply, first string) {
	d.t.Helper()
	c, err := scram.SHA256.NewClient(user, password, authz)
	if err != nil {
		d.t.Fatal(err)
	}
	conv, line := c.NewConversation(), "AUTH SCRAM-SHA-256 "
	text, err := conv.Step("")
	for {
		if err != nil {
			d.t.Fatal(err)
		}
		d.send(line + base64.StdEncoding.EncodeToString([]byte(text)) + "\r\n")
		line = ""
		if reply, err = d.r.ReadString('\n'); err != nil {
			d.t.Fatal(err)
		}
		challenge, more := strings.CutPrefix(reply, "334 ")
		if !more {
			return strings.TrimSpace(reply), first
		}
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(challenge))
		if err != nil {
			d.t.Fatal(err)
		}
		if first == "" {
			first = string(b)
		}
		if text, err = conv.Step(string(b)); err != nil {
			d.t.Fatalf("the client does not believe the server: %v", err)
		}
	}
}

// scramGuess is a client that sends any proof, and spends no time on it.
func (d *dialogue) scramGuess(user string) (reply, first string) {
	d.t.Helper()
	say := func(text string) string {
		d.send(text + "\r\n")
		line, err := d.r.ReadString('\n')
		if err != nil {
			d.t.Fatal(err)
		}
		return strings.TrimSpace(line)
	}
	b64 := base64.StdEncoding.EncodeToString
	reply = say("AUTH SCRAM-SHA-256 " + b64([]byte("n,,n="+user+",r=abc")))
	challenge, more := strings.CutPrefix(reply, "334 ")
	if !more {
		return reply, ""
	}
	b, err := base64.StdEncoding.DecodeString(challenge)
	if err != nil {
		d.t.Fatal(err)
	}
	first = string(b)
	nonce, _, _ := strings.Cut(first, ",")
	return say(b64([]byte("c=biws," + nonce + ",p=" + b64(make([]byte, 32))))), first
}

// onScram is a session under TLS that has said EHLO.
func onScram(t *testing.T, b *bench) *dialogue {
	d := on(t, b, "465")
	d.steps("s: 220 *", "c: EHLO c", "s* 6 250-*", "s: 250-AUTH SCRAM-SHA-256 PLAIN LOGIN", "s: 250 SIZE *")
	return d
}

// salt is that of a server-first message.
func salt(first string) string {
	for part := range strings.SplitSeq(first, ",") {
		if s, ok := strings.CutPrefix(part, "s="); ok {
			return s
		}
	}
	return ""
}

func TestScramLogin(t *testing.T) {
	b := start(t, scramSettings(t))
	d := onScram(t, b)
	if reply, _ := d.scramLogin("Alice", "secret", ""); reply != "235 2.7.0 authentication succeeded" {
		t.Fatal(reply)
	}
	d.steps("c: MAIL FROM:<a@example.org>", "s: 250 *", "c: RCPT TO:<b@example.com>", "s: 250 *", "c: DATA", "s: 354 *", "c: x: y", "c: ", "c: .", "s: 250 *")
	if it := b.queue.all()[0]; it.env.User != "alice" {
		t.Errorf("queued for %q", it.env.User)
	}
	d.steps(`c@ AUTH SCRAM-SHA-256 {n,,n=alice,r=abc}`, "s: 503 *")

	// In plain text there is none of it.
	on(t, b, "587").steps("s: 220 *", "c: EHLO c", "s* 7 250-*", "s: 250 *", `c@ AUTH SCRAM-SHA-256 {n,,n=alice,r=abc}`, "s: 538 5.7.11 *")
	// And none where it is not asked for.
	off := scramSettings(t)
	off.Scram = false
	d = on(t, start(t, off), "465")
	d.steps("s: 220 *", "c: EHLO c", "s* 6 250-*", "s: 250-AUTH PLAIN LOGIN", "s: 250 SIZE *", `c@ AUTH SCRAM-SHA-256 {n,,n=alice,r=abc}`, "s: 504 *")
}

// TestScramTellsNothing: a wrong password, names without a credential, unknown
// ones and disabled ones are answered alike; the salts stay what they are.
func TestScramTellsNothing(t *testing.T) {
	b := start(t, scramSettings(t))
	shown := map[string]string{}
	for i, name := range []string{"gone", "alice", "bob", "nobody", "gone", "nobody", "NOBODY", "other"} {
		var reply, first string
		if d := onScram(t, b); i == 0 { // the right password, were it not disabled
			reply, first = d.scramLogin(name, "secret", "")
		} else {
			reply, first = d.scramGuess(name)
		}
		if reply != "535 5.7.8 authentication failed" || salt(first) == "" {
			t.Errorf("%s: %s, %s", name, reply, first)
		}
		key := strings.ToLower(name)
		if old, seen := shown[key]; seen && old != salt(first) {
			t.Errorf("%s is shown another salt", name)
		}
		shown[key] = salt(first)
	}
	if shown["nobody"] == shown["other"] || len(shown["nobody"]) != len(shown["alice"]) {
		t.Errorf("salts tell who is there: %v", shown)
	}
	if n := b.Status().AuthFailures; n != 8 {
		t.Errorf("%d failures are counted, of 8", n)
	}
}

// TestScramGuesses: they are bounded as those of the other mechanisms are.
func TestScramGuesses(t *testing.T) {
	b := start(t, scramSettings(t))
	d := onScram(t, b)
	for range 2 {
		d.scramGuess("nobody")
	}
	if reply, _ := d.scramGuess("nobody"); !strings.HasPrefix(reply, "421 4.7.0 too many failed logins") {
		t.Error(reply)
	}
	for i := 3; i < sourceGuesses; i++ {
		onScram(t, b).scramGuess("user" + string(rune('a'+i)))
	}
	if reply, first := onScram(t, b).scramLogin("alice", "secret", ""); !strings.HasPrefix(reply, "454 4.7.0 too many failed logins") || first != "" {
		t.Errorf("%s, after %q", reply, first)
	}
}

func TestScramBadData(t *testing.T) {
	b := start(t, scramSettings(t))
	d := onScram(t, b)
	d.steps(
		`c@ AUTH SCRAM-SHA-256 {nonsense}`, "s: 501 5.5.2 *",
		`c@ AUTH SCRAM-SHA-256 {p=tls-unique,,n=alice,r=abc}`, "s: 501 5.5.2 *",
		`c@ AUTH SCRAM-SHA-256 {n,a=root,n=alice,r=abc}`, "s: 501 5.5.2 *",
		`c@ AUTH SCRAM-SHA-256 {n,,n=alice,r=abc}`, "s: 334 *", `c@ {nonsense}`, "s: 501 5.5.2 *",
		`c@ AUTH SCRAM-SHA-256 {n,,n=alice,r=abc}`, "s: 334 *", "c: *", "s: 501 5.7.0 *",
		`c: AUTH SCRAM-SHA-256`, "s: 334 ", `c@ {n,,n=alice,r=abc}`, "s: 334 *", "c: *", "s: 501 5.7.0 *",
		"c: MAIL FROM:<a@example.org>", "s: 530 *",
	)
	// A password that changes in the midst of it is not the right one any more.
	c, err := scram.SHA256.NewClient("alice", "secret", "")
	if err != nil {
		t.Fatal(err)
	}
	v := newScramVictim(t, scramSettings(t))
	conv := c.NewConversation()
	text, reply := "", []byte{}
	for range 2 {
		if text, err = conv.Step(string(reply)); err != nil {
			t.Fatal(err)
		}
		if reply, _, err = v.Next([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	changed := scramSettings(t)
	changed.Accounts[0].Scram = cheapScram(t, "new")
	if err := v.s.g.srv.Apply(changed); err != nil {
		t.Fatal(err)
	}
	if _, done, err := v.Next([]byte{}); done || err == nil || v.s.user != "" {
		t.Error("the old password passes")
	}
}

// newScramVictim is the server's side without a connection.
func newScramVictim(t testing.TB, set Settings) *scramServer {
	t.Helper()
	srv := New(Options{Queue: &memQueue{}, Events: NewEvents(time.Now), Log: slog.New(slog.DiscardHandler)})
	if err := srv.Apply(set); err != nil {
		t.Fatal(err)
	}
	v, err := newScramServer(&session{g: &guard{srv: srv, source: netip.MustParseAddr("192.0.2.1"), log: srv.log}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// FuzzScram: no words let anybody in who does not know the password.
func FuzzScram(f *testing.F) {
	f.Add("n,,n=alice,r=abc", "c=biws,r=abc,p=AAAA", "")
	f.Add("y,a=alice,n=alice,r=abc", "v=x", "x")
	set := testSettings()
	set.Scram, set.Limits.AuthDelay = true, Duration(time.Nanosecond)
	set.Accounts = []account.Account{{Name: "alice", Hash: cheapHash("secret"), Scram: cheapScram(f, "secret")}}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		v := newScramVictim(t, set)
		for _, text := range []string{a, b, c} {
			_, done, err := v.Next([]byte(text))
			if done || v.s.user != "" {
				t.Fatalf("%q, %q, %q is a login", a, b, c)
			}
			if err != nil {
				return
			}
		}
	})
}
