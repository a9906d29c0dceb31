package relay

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/relay/account"
)

// on connects to a running bench, in the way of the dialogues.
func on(t *testing.T, b *bench, port string) *dialogue {
	t.Helper()
	d := &dialogue{t: t, b: b, where: "port " + port}
	d.connect(port)
	return d
}

func (d *dialogue) steps(lines ...string) {
	d.t.Helper()
	for _, l := range lines {
		d.where = l
		d.step(l)
	}
}

var toData = []string{"s: 220 *", "c: HELO c", "s: 250 *", "c: MAIL FROM:<a@example.org>", "s: 250 *", "c: RCPT TO:<b@example.com>", "s: 250 *", "c: DATA", "s: 354 *"}

// TestStallInData is go-smtp's hazard 1: what follows a stall inside a message
// must never be read as commands.
func TestStallInData(t *testing.T) {
	set := withPeer(testSettings())
	set.Limits.Command = Duration(2 * time.Second) // enough for each line before
	d := on(t, start(t, set), "25")
	d.steps(append(toData, `c> Subject: x\r\n\r\nhalf`, "s: 421 4.4.2 message did not arrive whole*", "eof", "queued 0")...)
}

func TestCutInData(t *testing.T) {
	b := start(t, withPeer(testSettings()))
	d := on(t, b, "25")
	d.steps(append(toData, `c> Subject: x\r\n\r\nhalf\r\n.\r`)...)
	d.conn.Close()
	eventually(t, "the session ends", func() bool { return b.openSessions() == 0 })
	d.step("queued 0")

	// The same under TLS, with a proper close_notify.
	d = on(t, b, "465")
	d.steps("s: 220 *", "c: EHLO c", "s* 7 250-*", "s: 250 *", `c@ AUTH PLAIN {\x00alice\x00secret}`, "s: 235 *")
	d.steps(append([]string{"c: NOOP"}, append([]string{"s: 250 *"}, toData[3:]...)...)...)
	d.step(`c> Subject: x\r\n\r\nhalf\r\n`)
	d.conn.(*tls.Conn).CloseWrite()
	eventually(t, "the session ends", func() bool { return b.openSessions() == 0 })
	d.step("queued 0")
}

// TestDrippedLine: a line that comes byte by byte has no more time than others.
func TestDrippedLine(t *testing.T) {
	set := testSettings()
	set.Limits.Command = Duration(300 * time.Millisecond)
	d := on(t, start(t, set), "25")
	d.step("s: 220 *")
	go func() {
		for range 1000 {
			if _, err := d.conn.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	d.steps("s: 421 4.4.2 timeout*")
}

func TestSessionWithoutMailEnds(t *testing.T) {
	set := testSettings()
	set.Limits.Session = Duration(time.Second)
	d := on(t, start(t, set), "25")
	d.steps("s: 220 *", "s: 421 4.4.2 session is too long*", "eof")
}

func TestLongLines(t *testing.T) {
	b := start(t, testSettings())
	d := on(t, b, "587")
	d.steps("s: 220 *", "c: EHLO c", "s* 7 250-*", "s: 250 *")
	d.send("NOOP " + strings.Repeat("x", 100000) + "\r\nNOOP " + strings.Repeat("y", maxLine-7) + "\r\nNOOP " + strings.Repeat("y", maxLine-6) + "\r\n")
	d.steps("s: 500 5.5.2 line is too long", "s: 250 *", "s: 500 5.5.2 line is too long", "silent", "c: STARTTLS", "s: 220 *", "tls", "c: EHLO c", "s* 7 250-*", "s: 250 *")
	d.send("AUTH PLAIN " + strings.Repeat("QUFB", 3000) + "\r\n") // within RFC 4954's bound: bad, not too long
	d.steps("s: 501 5.5.2 bad authentication data", "c: AUTH PLAIN", "s: 334 ")
	d.send(strings.Repeat("QUFB", 30000) + "\r\n")
	d.steps("s: 500 5.5.6 *", "silent")

	d = on(t, b, "587")
	d.step("s: 220 *")
	go d.conn.Write([]byte(strings.Repeat("z", maxSkip+100000)))
	d.steps("s: 500 5.5.2 line is too long")
}

// TestLongBodyLine: within a message a line may have any length.
func TestLongBodyLine(t *testing.T) {
	b := start(t, withPeer(testSettings()))
	d := on(t, b, "25")
	d.steps(toData...)
	long := strings.Repeat("x", 15000)
	d.send("Subject: x\r\n\r\n" + long + "\r\n.\r\n")
	d.steps("s: 250 *")
	if items := b.queue.all(); !strings.HasSuffix(items[0].body, "\r\n\r\n"+long+"\r\n") {
		t.Errorf("queued is %d bytes long and not what was sent", len(items[0].body))
	}
}

func TestRoomForSessions(t *testing.T) {
	set := testSettings()
	set.Limits.SessionsPerSource = 2
	b := start(t, set)
	one, two := on(t, b, "25"), on(t, b, "25")
	one.step("s: 220 *")
	two.step("s: 220 *")
	on(t, b, "25").steps("s: 421 4.7.0 too many connections from your address", "eof")
	one.steps("c: QUIT", "s: 221 *", "eof")
	eventually(t, "the place is free again", func() bool { return b.openSessions() == 1 })
	on(t, b, "587").step("s: 220 *")

	set.Limits = Limits{Sessions: 2, SessionsPerSource: 50}
	if err := b.Apply(set); err != nil {
		t.Fatal(err)
	}
	on(t, b, "25").steps("s: 421 4.3.2 too many connections*", "eof")
}

// TestStalledHandshakes: who does not shake hands takes a place for a bounded
// time, and keeps nobody out.
func TestStalledHandshakes(t *testing.T) {
	set := testSettings()
	set.Limits.Handshake = Duration(2 * time.Second) // enough for one that goes on
	b := start(t, set)
	for range 50 {
		conn, err := net.Dial("tcp", b.addr["465"])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	on(t, b, "465").step("s: 220 *")
	eventually(t, "the stalled ones are gone", func() bool { return b.openSessions() == 1 })
}

func TestReload(t *testing.T) {
	b := start(t, testSettings())
	d := on(t, b, "465")
	d.steps("s: 220 *", "c: EHLO c", "s* 7 250-*", "s: 250 *", `c@ AUTH PLAIN {\x00alice\x00secret}`, "s: 235 *", "c: MAIL FROM:<a@example.org>", "s: 250 *")
	before := b.Status()

	bad := testSettings()
	bad.Accounts = append(bad.Accounts, account.Account{Name: "Bad Name"})
	if err := b.Apply(bad); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("bad settings: %v", err)
	}
	if b.Status().SettingsHash != before.SettingsHash {
		t.Error("bad settings are in force")
	}
	// The session goes on; that its account is disabled now counts at once.
	set := testSettings()
	set.Accounts[0].Disabled = true
	if err := b.Apply(set); err != nil {
		t.Fatal(err)
	}
	d.steps("c: RCPT TO:<b@example.com>", "s: 530 5.7.0 authentication required", "c: RSET", "s: 250 *")
	set.Accounts[0].Disabled = false
	if err := b.Apply(set); err != nil {
		t.Fatal(err)
	}
	d.steps("c: MAIL FROM:<a@example.org>", "s: 250 *", "c: RCPT TO:<b@example.com>", "s: 250 *")
	// And it counts at DATA.
	set.Accounts = set.Accounts[1:]
	if err := b.Apply(set); err != nil {
		t.Fatal(err)
	}
	d.steps("c: DATA", "s: 354 *", "c: text", "c: .", "s: 530 5.7.0 *", "queued 0", "silent")
}

func TestCertificate(t *testing.T) {
	b := start(t, testSettings())
	shown := func() string {
		d := on(t, b, "465")
		d.step("s: 220 *")
		state := d.conn.(*tls.Conn).ConnectionState()
		if state.Version < tls.VersionTLS12 {
			t.Errorf("TLS version %x", state.Version)
		}
		return string(state.PeerCertificates[0].Raw)
	}
	first := shown()
	if !b.Status().SelfSigned {
		t.Error("the status does not say that the certificate is self-signed")
	}
	if err := b.Apply(testSettings()); err != nil {
		t.Fatal(err)
	}
	if shown() != first {
		t.Error("the self-signed certificate changes with a reload")
	}
	old := tls.Client(dialRaw(t, b.addr["465"]), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if err := old.Handshake(); err == nil {
		t.Error("TLS 1.1 is taken")
	}
}

func dialRaw(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestDrain: the idle session is told, the busy one ends its message.
func TestDrain(t *testing.T) {
	b := start(t, withPeer(testSettings()))
	idle, busy := on(t, b, "25"), on(t, b, "25")
	idle.step("s: 220 *")
	busy.steps(toData...)
	done := make(chan struct{})
	go func() { b.stop(); close(done) }()
	idle.steps("s: 421 4.3.2 *", "eof")
	busy.steps("c: text", "c: .", "s: 250 2.0.0 queued *", "s: 421 4.3.2 *", "eof", "queued 1")
	<-done
	if c, err := net.Dial("tcp", b.addr["25"]); err == nil {
		if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
			t.Errorf("after the end somebody says %q", line)
		}
	}
}

// TestDrainIsBounded: who does not end is cut off.
func TestDrainIsBounded(t *testing.T) {
	b := start(t, withPeer(testSettings()))
	d := on(t, b, "25")
	d.steps(toData...)
	b.stop()
	if _, err := io.ReadAll(d.conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the session is not cut off: %v", err)
	}
	if n := b.openSessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// TestWaitsForSettings: before the first settings nobody is served, and the
// connection waits in the backlog.
func TestWaitsForSettings(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{queue: &memQueue{}, addr: map[string]string{"25": l.Addr().String()}}
	b.run(t, []Listener{{Net: l, Port: 25, TLS: TLSStartTLS}})
	d := on(t, b, "25")
	d.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if line, err := d.r.ReadString('\n'); !isTimeout(err) {
		t.Fatalf("without settings it says %q, %v", line, err)
	}
	d.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := b.Apply(testSettings()); err != nil {
		t.Fatal(err)
	}
	d.step("s: 220 relay.example *")
}

// TestEnvelope: what the queue gets is what the client meant.
func TestEnvelope(t *testing.T) {
	b := start(t, withPeer(testSettings()))
	d := on(t, b, "25")
	d.steps("s: 220 *", "c: EHLO client.example", "s* 7 250-*", "s: 250 *",
		`c: MAIL FROM:<"a b"@example.org> BODY=8BITMIME RET=HDRS ENVID=x+2By SMTPUTF8`, "s: 250 *",
		`c: RCPT TO:<"v@evil.example> NOTIFY=NEVER"@good.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;b+40c`, "s: 250 *",
		"c: RCPT TO:<Postmaster>", "s: 250 *", "c: DATA", "s: 354 *", "c: x", "c: .", "s: 250 *")
	e := b.queue.all()[0].env
	if e.From != `"a b"@example.org` || e.EnvID != "x+y" || e.Ret != "HDRS" || !e.EightBit || e.UTF8 || !e.Trusted || e.Helo != "client.example" || e.Source.String() != "127.0.0.1" {
		t.Errorf("envelope %+v", e)
	}
	r := e.Rcpts[0]
	if r.Addr != `"v@evil.example> NOTIFY=NEVER"@good.example` || strings.Join(r.Notify, " ") != "FAILURE DELAY" || r.ORcpt != "RFC822;b@c" {
		t.Errorf("recipient %+v", r)
	}
	if e.Rcpts[1].Addr != "Postmaster@relay.example" {
		t.Errorf("postmaster is %q", e.Rcpts[1].Addr)
	}
	// The header is what the flag is about; addresses speak for themselves.
	d.steps("c: MAIL FROM:<ä@example.org> SMTPUTF8", "s: 250 *", "c: RCPT TO:<b@good.example>", "s: 250 *", "c: DATA", "s: 354 *", "c: Subject: x", "c: ", "c: ü", "c: .", "s: 250 *",
		"c: MAIL FROM:<a@example.org> SMTPUTF8", "s: 250 *", "c: RCPT TO:<b@good.example>", "s: 250 *", "c: DATA", "s: 354 *", "c: Subject: ü", "c: .", "s: 250 *")
	if all := b.queue.all(); all[1].env.UTF8 || !all[2].env.UTF8 {
		t.Errorf("envelopes %+v, %+v", all[1].env, all[2].env)
	}
}

// TestEvents: the agent learns who tried what.
func TestEvents(t *testing.T) {
	b := start(t, testSettings())
	d := on(t, b, "465")
	d.steps("s: 220 *", "c: EHLO c", "s* 7 250-*", "s: 250 *", `c@ AUTH PLAIN {\x00alice\x00wrong}`, "s: 535 *",
		"c: MAIL FROM:<a@example.org>", "s: 530 *", `c@ AUTH PLAIN {\x00bob\x00hunter2}`, "s: 235 *",
		"c: MAIL FROM:<a@example.org>", "s: 550 *", "c: MAIL FROM:<bob@example.org>", "s: 250 *", "c: RCPT TO:<c@example.com>", "s: 250 *",
		"c: DATA", "s: 354 *", `c> a\nb\r\n.\r\n`, "s: 554 *",
		"c: MAIL FROM:<bob@example.org>", "s: 250 *", "c: RCPT TO:<c@example.com>", "s: 250 *", "c: DATA", "s: 354 *", "c: x", "c: .", "s: 250 *")
	events, _, _ := b.events.Since(0)
	var got []string
	for _, e := range events {
		got = append(got, e.Kind+" "+e.User+" "+e.From)
		if e.Source != "127.0.0.1" || e.Port != 465 || e.Session == "" || strings.Contains(e.Message+e.Reply, "wrong") {
			t.Errorf("event %+v", e)
		}
	}
	want := "auth-failure alice |unauthorized  a@example.org|unauthorized bob a@example.org|refused bob bob@example.org|accepted bob bob@example.org"
	if s := strings.Join(got, "|"); s != want {
		t.Errorf("events are\n%s, want\n%s", s, want)
	}
	st := b.Status()
	if st.Accepted != 1 || st.Refused != 3 || st.AuthFailures != 1 || st.Unauthorized != 2 || st.Sessions != 1 || st.Total != 1 {
		t.Errorf("status %+v", st)
	}
}
