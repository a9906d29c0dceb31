package relay

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/relay/quota"
)

// withQuota is a running bench that counts.
func withQuota(t *testing.T, set Settings) (*bench, *quota.Book) {
	t.Helper()
	book, err := quota.Open(filepath.Join(t.TempDir(), "quota.log"), time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { book.Close() })
	b := startWith(t, set, book)
	return b, book
}

var login = []string{"s: 220 *", "c: EHLO c", "s* 7 250-*", "s: 250 *", `c@ AUTH PLAIN {\x00alice\x00secret}`, "s: 235 *"}

var letter = []string{"c: MAIL FROM:<a@example.org>", "s: 250 *", "c: RCPT TO:<b@x.example>", "s: 250 *", "c: DATA", "s: 354 *", "c: text", "c: .", "s: 250 *"}

func TestUserQuota(t *testing.T) {
	set := testSettings()
	set.Quota.User = quota.Limits{MessagesPerHour: 2, RecipientsPerDay: 5}
	b, book := withQuota(t, set)
	d := on(t, b, "465")
	d.steps(login...)
	d.steps(letter...)
	// What comes to nothing is not counted.
	d.steps("c: MAIL FROM:<a@example.org>", "s: 250 *", "c: RCPT TO:<b@x.example>", "s: 250 *", "c: DATA", "s: 354 *", `c> a\nb\r\n.\r\n`, "s: 554 *")
	d.steps("fail full")
	d.steps("c: MAIL FROM:<a@example.org>", "s: 250 *", "c: RCPT TO:<b@x.example>", "s: 250 *", "c: DATA", "s: 354 *", "c: text", "c: .", "s: 452 4.3.1 *")
	b.queue.mu.Lock()
	b.queue.fail = nil
	b.queue.mu.Unlock()
	d.steps("c: MAIL FROM:<a@example.org>", "s: 250 *")
	for range 4 {
		d.steps("c: RCPT TO:<b@x.example>", "s: 250 *")
	}
	d.steps("c: RCPT TO:<b@x.example>", "s: 452 4.7.1 quota of 5 recipients a day is used up, try again after 20*Z",
		"c: DATA", "s: 354 *", "c: text", "c: .", "s: 250 *", "queued 2", "c: MAIL FROM:<a@example.org>", "s: 452 4.7.1 quota of *")
	if u, _ := book.Usage("user alice", quota.Limits{}); u.MessagesDay != 2 || u.RecipientsDay != 5 {
		t.Errorf("usage %+v", u)
	}
	// Another user has a count of his own; limits of his own take its place.
	own := quota.Limits{MessagesPerHour: 3}
	set.Accounts[0].Quota = &own
	if err := b.Apply(set); err != nil {
		t.Fatal(err)
	}
	d.steps(letter...)
	d.steps("c: MAIL FROM:<a@example.org>", "s: 452 4.7.1 quota of 3 messages an hour *", "queued 3")
	events, _, _ := b.events.Since(0)
	told := 0
	for _, e := range events {
		if e.Kind == OverQuota {
			told++
			if e.User != "alice" || !strings.Contains(e.Message, "5 recipients a day") {
				t.Errorf("event %+v", e)
			}
		}
	}
	if told != 1 {
		t.Errorf("told %d times, want once", told)
	}
}

// TestQuotaIsExact: two sessions that were both let in at MAIL.
func TestQuotaIsExact(t *testing.T) {
	set := testSettings()
	set.Quota.User.MessagesPerHour = 1
	b, _ := withQuota(t, set)
	one, two := on(t, b, "465"), on(t, b, "465")
	for _, d := range []*dialogue{one, two} {
		d.steps(login...)
		d.steps(letter[:4]...)
	}
	var replies []string
	for _, d := range []*dialogue{one, two} {
		d.steps("c: DATA", "s: 354 *", "c: text", "c: .")
		line, err := d.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		replies = append(replies, line[:3])
	}
	slices.Sort(replies)
	if got := strings.Join(replies, " "); got != "250 452" {
		t.Errorf("the two hear %s", got)
	}
	one.step("queued 1")
}

func TestSourceQuota(t *testing.T) {
	set := withPeer(testSettings())
	set.Quota.Source.MessagesPerDay = 1
	set.RelayDomains = []string{"ours.example"}
	b, book := withQuota(t, set)
	d := on(t, b, "25")
	d.steps("s: 220 *", "c: EHLO c", "s* 7 250-*", "s: 250 *")
	d.steps(letter...)
	d.steps("c: MAIL FROM:<a@example.org>", "s: 452 4.7.1 quota of 1 message a day *")
	if u, v := book.Usage("source 127.0.0.1/32", set.Quota.Source); u.MessagesDay != 1 || !v.Over {
		t.Errorf("usage %+v, %+v", u, v)
	}
	// A stranger's mail to our own domains is nobody's.
	set.Peers = nil
	if err := b.Apply(set); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		d.steps("c: MAIL FROM:<a@example.org>", "s: 250 *", "c: RCPT TO:<b@ours.example>", "s: 250 *", "c: DATA", "s: 354 *", "c: text", "c: .", "s: 250 *")
	}
	if k := book.Keys(); len(k) != 1 {
		t.Errorf("keys %q", k)
	}
}

func TestOverQuotaIsHeld(t *testing.T) {
	set := testSettings()
	set.Quota = QuotaConfig{User: quota.Limits{MessagesPerHour: 1}, Over: OverHold}
	b, _ := withQuota(t, set)
	d := on(t, b, "465")
	d.steps(login...)
	d.steps(letter...)
	d.steps(letter[:8]...)
	d.steps("s: 250 2.0.0 queued as item2 and held for release*", "queued 2")
	if items := b.queue.all(); items[0].env.Hold || !items[1].env.Hold {
		t.Errorf("held: %v, %v", items[0].env.Hold, items[1].env.Hold)
	}
	d.steps(letter[:8]...)
	d.steps("s: 452 4.7.1 *", "queued 2")
}

func TestQuotaConfig(t *testing.T) {
	for want, q := range map[string]QuotaConfig{
		"quota.user.messages_per_hour":    {User: quota.Limits{MessagesPerHour: -1}},
		"quota.source.recipients_per_day": {Source: quota.Limits{RecipientsPerDay: -1}},
		"quota.over":                      {Over: "bounce"},
	} {
		set := testSettings()
		set.Quota = q
		if _, err := set.compile(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		c := DefaultConfig()
		c.Enabled, c.Hostname, c.Quota = true, "relay.example", q
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "relay."+want) {
			t.Errorf("relay.%s: %v", want, err)
		}
	}
}
