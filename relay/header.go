package relay

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

const (
	maxHeader = 256 << 10 // bytes
	maxHops   = 100       // Received fields; RFC 5321 section 6.3
)

var (
	errHeaderTooBig = errors.New("message header is too big")
	errLoop         = errors.New("too many hops")
)

// trace is what goes into the Received field.
type trace struct {
	helo, hostname, id string
	source             netip.Addr
	tls                *tls.ConnectionState // nil: plain text
	auth, utf8, esmtp  bool
	rcpt               string // where there is only one
	at                 time.Time
}

// prepare reads the header off r and returns the message as it is queued: our
// Received field on top, then the header, then the body as it came. Where
// submission is set (RFC 6409 section 8) Bcc is taken out, and Date and
// Message-ID are added where they are missing. Nothing else changes. ascii says
// whether the header is.
func prepare(r io.Reader, t trace, submission bool) (msg io.Reader, ascii bool, err error) {
	head, rest, err := readHeader(r)
	if err != nil {
		return nil, false, err
	}
	ascii = isASCII(string(head))
	fields := splitFields(head)
	hops, hasDate, hasID := 0, false, false
	out := make([]byte, 0, len(head)+1024)
	out = append(out, t.received()...)
	for _, f := range fields {
		switch strings.ToLower(fieldName(f)) {
		case "received":
			hops++
		case "date":
			hasDate = true
		case "message-id":
			hasID = true
		case "bcc", "resent-bcc":
			if submission {
				continue
			}
		}
		out = append(out, f...)
	}
	if hops > maxHops {
		return nil, false, errLoop
	}
	if submission && !hasDate {
		out = fmt.Appendf(out, "Date: %s\r\n", t.at.Format(time.RFC1123Z))
	}
	if submission && !hasID {
		out = fmt.Appendf(out, "Message-ID: <%s.%s@%s>\r\n", t.at.UTC().Format("20060102150405"), strings.ToLower(rand.Text()), t.hostname)
	}
	out = append(out, '\r', '\n')
	return io.MultiReader(bytes.NewReader(append(out, rest...)), r), ascii, nil
}

// readHeader reads up to and with the empty line that ends the header. rest is
// what it read of the body. A line that is no field ends the header as well and
// belongs to the body: so a message without a header keeps every line.
func readHeader(r io.Reader) (head, rest []byte, err error) {
	buf := make([]byte, 0, 8<<10)
	pos := 0 // of the first line not looked at
	for {
		for {
			n := bytes.IndexByte(buf[pos:], '\n')
			if n < 0 {
				break
			}
			line := buf[pos : pos+n+1]
			switch {
			case bytes.Equal(line, []byte("\r\n")):
				return buf[:pos], buf[pos+2:], nil
			case pos > 0 && (line[0] == ' ' || line[0] == '\t'):
			case fieldName(line) == "":
				return buf[:pos], buf[pos:], nil
			}
			pos += n + 1
		}
		if len(buf) > maxHeader {
			return nil, nil, errHeaderTooBig
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF && n == 0 {
			return buf[:pos], buf[pos:], nil
		}
		if err != nil && err != io.EOF {
			return nil, nil, err
		}
	}
}

// splitFields cuts a header into its fields, each with its folded lines.
func splitFields(head []byte) [][]byte {
	var fields [][]byte
	for len(head) > 0 {
		end := 0
		for {
			n := bytes.IndexByte(head[end:], '\n')
			if n < 0 {
				end = len(head)
				break
			}
			if end += n + 1; end == len(head) || head[end] != ' ' && head[end] != '\t' {
				break
			}
		}
		fields = append(fields, head[:end])
		head = head[end:]
	}
	return fields
}

// fieldName returns the name of the field that line begins, or "".
func fieldName(line []byte) string {
	name, _, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return ""
	}
	name = bytes.TrimRight(name, " \t") // the obsolete syntax of RFC 5322 section 4.5
	for _, b := range name {
		if b <= ' ' || b >= 0x7f {
			return ""
		}
	}
	return string(name)
}

// received is the Received field (RFC 5321 section 4.4, RFC 3848, RFC 6531).
func (t trace) received() string {
	var b strings.Builder
	from := "[" + t.source.String() + "]"
	if t.source.Is6() {
		from = "[IPv6:" + t.source.String() + "]"
	}
	if validDomain(t.helo) && isASCII(t.helo) {
		fmt.Fprintf(&b, "Received: from %s (%s)\r\n", t.helo, from)
	} else {
		fmt.Fprintf(&b, "Received: from %s\r\n", from)
	}
	fmt.Fprintf(&b, "\tby %s (synward) with %s id %s", t.hostname, t.protocol(), t.id)
	if t.tls != nil {
		fmt.Fprintf(&b, "\r\n\t(%s %s)", tls.VersionName(t.tls.Version), tls.CipherSuiteName(t.tls.CipherSuite))
	}
	if t.rcpt != "" {
		fmt.Fprintf(&b, "\r\n\tfor <%s>", t.rcpt)
	}
	fmt.Fprintf(&b, ";\r\n\t%s\r\n", t.at.Format(time.RFC1123Z))
	return b.String()
}

// protocol is the keyword of RFC 3848 or RFC 6531.
func (t trace) protocol() string {
	p := "SMTP"
	switch {
	case t.utf8:
		p = "UTF8SMTP"
	case t.esmtp || t.tls != nil || t.auth:
		p = "ESMTP"
	}
	if t.tls != nil {
		p += "S"
	}
	if t.auth {
		p += "A"
	}
	return p
}
