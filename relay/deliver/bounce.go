package deliver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/synward/synward/relay/queue"
)

// action is what a report says of a recipient (RFC 3464 2.3.3).
type action string

const (
	actionFailed  action = "failed"
	actionDelayed action = "delayed"
	actionRelayed action = "relayed"
)

const (
	maxHeader   = 64 << 10 // octets of the original's header in a report
	maxReturned = 64 << 10 // octets up to which RET=FULL returns all of the message
)

// report queues a delivery status notification to the sender, if he wants one
// and there is one. A null sender gets none: that would be a bounce of a
// bounce (RFC 5321 4.5.5).
func (e *Engine) report(a *attempt, list []answer, act action) error {
	if act == actionFailed {
		list = slices.DeleteFunc(slices.Clone(list), func(ans answer) bool {
			n := a.it.Rcpts[ans.rcpt].Notify
			return len(n) > 0 && !slices.Contains(n, "FAILURE")
		})
	}
	if len(list) == 0 {
		return nil
	}
	if a.it.From == "" {
		if act == actionFailed {
			e.opt.Log.Warn("a bounce cannot be delivered: dropped", "item", a.it.ID, "rcpt", a.it.Rcpts[list[0].rcpt].Addr, "reply", list[0].reply.String())
		}
		return nil
	}
	original, whole, err := e.original(a.it)
	if err != nil {
		original = nil // better a report without it than none
	}
	r := report{a: a, list: list, action: act, now: e.opt.Now(), original: original, whole: whole}
	r.sevenBit()
	text := r.message()
	env := queue.Envelope{
		Rcpts:    []queue.Recipient{{Addr: a.it.From, Notify: []string{"NEVER"}}},
		Session:  a.it.ID,
		EightBit: !isASCII(string(text)),
		UTF8:     r.utf8(),
	}
	id, err := e.opt.Queue.Add(context.Background(), env, bytes.NewReader(text))
	if err != nil {
		return err
	}
	e.opt.Log.Info("report queued", "item", id, "about", a.it.ID, "action", string(act), "rcpt", a.it.From)
	return nil
}

// original returns the header of the message, or all of it where that was
// asked for and it is short. The lines end in CRLF and hold no bare CR.
func (e *Engine) original(it queue.Item) (text []byte, whole bool, err error) {
	body, err := e.opt.Queue.Body(it.ID)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = body.Close() }() // only read
	whole = it.Ret == "FULL" && it.Size <= maxReturned
	r := bufio.NewReader(io.LimitReader(body, max(maxHeader, maxReturned)))
	for {
		line, err := r.ReadString('\n')
		text = append(text, safeLine(line)...)
		if err == io.EOF || err == nil && !whole && strings.TrimRight(line, "\r\n") == "" {
			return text, whole, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// safeLine makes a line one that copyDots lets out.
func safeLine(s string) string {
	s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
	return strings.NewReplacer("\r", "?", "\n", "?", "\x00", "?").Replace(s) + "\r\n"
}

// report is a notification being written.
type report struct {
	a        *attempt
	list     []answer
	action   action
	now      time.Time
	original []byte
	whole    bool
	b        bytes.Buffer
}

// utf8 says whether the report needs the forms of RFC 6533.
func (r *report) utf8() bool {
	for _, ans := range r.list {
		if !isASCII(r.a.it.Rcpts[ans.rcpt].Addr) {
			return true
		}
	}
	return !isASCII(r.a.it.From)
}

// sevenBit keeps octets above 127 out of a report that can do without: it would
// be lost at a next hop that does not take them.
func (r *report) sevenBit() {
	if r.utf8() || isASCII(string(r.original)) {
		return
	}
	if end := bytes.Index(r.original, []byte("\r\n\r\n")); r.whole && end >= 0 {
		r.original, r.whole = r.original[:end+4], false
	}
	for i, c := range r.original {
		if c >= 0x80 {
			r.original[i] = '?'
		}
	}
}

func (r *report) line(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	r.b.WriteString(safeLine(s))
}

// message writes the whole report (RFC 3462, RFC 3464).
func (r *report) message() []byte {
	host, it := r.a.s.Hostname, r.a.it
	mark := "=_synward_" + rand.Text()
	subject := map[action]string{
		actionFailed: "Undelivered mail returned to sender", actionDelayed: "Mail is delayed, no need to send it again",
		actionRelayed: "Mail was passed on",
	}[r.action]
	r.line("From: Mail delivery <MAILER-DAEMON@%s>", host)
	r.line("To: <%s>", it.From)
	r.line("Subject: %s", subject)
	r.line("Date: %s", r.now.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	r.line("Message-ID: <%s@%s>", rand.Text(), host)
	r.line("Auto-Submitted: auto-replied")
	r.line("MIME-Version: 1.0")
	r.line("Content-Type: multipart/report; report-type=delivery-status;")
	r.line("\tboundary=\"%s\"", mark)
	r.line("")
	r.line("--%s", mark)
	r.line("Content-Type: text/plain; charset=utf-8")
	r.line("Content-Transfer-Encoding: %s", map[bool]string{true: "8bit", false: "7bit"}[r.utf8()])
	r.line("")
	r.words()
	r.line("")
	r.line("--%s", mark)
	r.status()
	if len(r.original) > 0 {
		kind := map[bool]string{false: "text/rfc822-headers", true: "message/rfc822"}[r.whole]
		if r.utf8() {
			kind = map[bool]string{false: "message/global-headers", true: "message/global"}[r.whole]
		}
		r.line("--%s", mark)
		r.line("Content-Type: %s", kind)
		r.line("Content-Transfer-Encoding: %s", map[bool]string{true: "7bit", false: "8bit"}[isASCII(string(r.original))])
		r.line("")
		r.b.Write(r.original)
		r.line("")
	}
	r.line("--%s--", mark)
	return r.b.Bytes()
}

// words is the part for a person.
func (r *report) words() {
	r.line("This is the mail system at %s.", r.a.s.Hostname)
	r.line("")
	switch r.action {
	case actionFailed:
		r.line("Your message could not be delivered to:")
	case actionDelayed:
		r.line("Your message could not be delivered yet. It is being tried until %s to:",
			r.a.it.Received.Add(r.a.s.Expire).Format(time.RFC1123Z))
	case actionRelayed:
		r.line("Your message was passed on to a system that does not confirm deliveries, for:")
	}
	for _, ans := range r.list {
		r.line("")
		r.line("  <%s>", r.a.it.Rcpts[ans.rcpt].Addr)
		r.line("    %s", ans.reply)
	}
}

// status is the part for a machine (RFC 3464 2.1, RFC 6533 3).
func (r *report) status() {
	it := r.a.it
	kind := "rfc822"
	if r.utf8() {
		kind = "utf-8"
		r.line("Content-Type: message/global-delivery-status")
		r.line("Content-Transfer-Encoding: 8bit")
	} else {
		r.line("Content-Type: message/delivery-status")
	}
	r.line("")
	if it.EnvID != "" {
		r.line("Original-Envelope-Id: %s", xtext(it.EnvID))
	}
	r.line("Reporting-MTA: dns; %s", r.a.s.Hostname)
	r.line("Arrival-Date: %s", it.Received.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	for _, ans := range r.list {
		rc := it.Rcpts[ans.rcpt]
		r.line("")
		if rc.ORcpt != "" {
			r.line("Original-Recipient: %s", rc.ORcpt)
		}
		r.line("Final-Recipient: %s; %s", kind, rc.Addr)
		r.line("Action: %s", r.action)
		r.line("Status: %s", ans.reply.status())
		if hop := r.a.hopOf[ans.rcpt]; hop != "" {
			if host := hop[:strings.IndexAny(hop+":", "[:")]; host != "" {
				r.line("Remote-MTA: dns; %s", host)
			}
			r.line("Diagnostic-Code: smtp; %s", ans.reply)
		}
		r.line("Last-Attempt-Date: %s", r.now.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
		if r.action == actionDelayed {
			r.line("Will-Retry-Until: %s", it.Received.Add(r.a.s.Expire).Format("Mon, 02 Jan 2006 15:04:05 -0700"))
		}
	}
	r.line("")
}
