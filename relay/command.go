package relay

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// verb is an SMTP command's name in upper case.
type verb string

// The commands that we know. All others get 500, those of RFC 5321 that we do
// not offer 502.
const (
	verbEhlo  verb = "EHLO"
	verbHelo  verb = "HELO"
	verbMail  verb = "MAIL"
	verbRcpt  verb = "RCPT"
	verbData  verb = "DATA"
	verbRset  verb = "RSET"
	verbNoop  verb = "NOOP"
	verbVrfy  verb = "VRFY"
	verbQuit  verb = "QUIT"
	verbAuth  verb = "AUTH"
	verbStart verb = "STARTTLS"
	verbBdat  verb = "BDAT"
)

// maxParams bounds the parameters of MAIL and RCPT.
const maxParams = 10

// command is one checked command line.
type command struct {
	verb   verb
	arg    string
	path   path   // of MAIL and RCPT
	params string // of MAIL and RCPT: what go-smtp may see, "" or " A=b C=d"
	size   int64  // of MAIL: SIZE, bytes; -1 where it was too large for a number
	utf8   bool   // of MAIL: SMTPUTF8
}

// parseCommand checks one line, without its CRLF, and takes it apart. A bad
// line gives the answer that it deserves.
func parseCommand(line []byte) (command, answer) {
	if bad := checkLine(line); bad != ansNone {
		return command{}, bad
	}
	name, arg, spaced := strings.Cut(string(line), " ")
	c := command{verb: verb(strings.ToUpper(name)), arg: strings.Trim(arg, " ")}
	switch c.verb {
	case verbEhlo, verbHelo:
		if !validHelo(c.arg) {
			return c, ansBadHelo
		}
	case verbMail, verbRcpt:
		return c, c.parseMailRcpt()
	case verbNoop, verbVrfy:
	case verbData, verbRset, verbQuit, verbStart:
		if spaced && c.arg != "" {
			return c, ansBadParams
		}
	case verbAuth:
		if c.arg == "" {
			return c, ansBadParams
		}
	case verbBdat, "EXPN", "HELP", "TURN", "SEND", "SOML", "SAML", "ETRN", "LHLO", "XCLIENT", "XFORWARD":
		return c, ansNotOffered
	default:
		return c, ansUnknown
	}
	return c, ansNone
}

// checkLine refuses control characters (a bare CR among them) and what is not
// UTF-8: neither can be part of a command, and both have carried attacks.
func checkLine(line []byte) answer {
	for _, b := range line {
		if b < ' ' || b == 0x7f {
			return ansBadLine
		}
	}
	if !utf8.Valid(line) {
		return ansBadLine
	}
	return ansNone
}

// validHelo is lenient, as clients give the strangest names: any one word. It
// reaches a trace header only if it is a name or an address literal (header.go).
func validHelo(s string) bool {
	return s != "" && len(s) <= maxDomain && !strings.Contains(s, " ")
}

// parseMailRcpt reads FROM:<path> or TO:<path> and the parameters after it.
func (c *command) parseMailRcpt() answer {
	prefix, bad := "FROM:", ansBadSender
	if c.verb == verbRcpt {
		prefix, bad = "TO:", ansBadRcpt
	}
	if len(c.arg) < len(prefix) || !strings.EqualFold(c.arg[:len(prefix)], prefix) {
		return ansBadParams
	}
	p, rest, err := parsePath(strings.TrimLeft(c.arg[len(prefix):], " "))
	if err != nil || rest != "" && rest[0] != ' ' {
		return bad
	}
	if c.verb == verbRcpt && p.null() || c.verb == verbMail && p.domain == "" && !p.null() {
		return bad
	}
	c.path = p
	return c.parseParams(rest)
}

// parseParams checks the ESMTP parameters and keeps SIZE and SMTPUTF8; the
// others are go-smtp's, which takes them from a map and so wants each once.
func (c *command) parseParams(s string) answer {
	seen := map[string]bool{}
	for param := range strings.FieldsSeq(s) {
		key, value, hasValue := strings.Cut(param, "=")
		key = strings.ToUpper(key)
		if !validKeyword(key) || seen[key] || len(seen) == maxParams || strings.Contains(value, "=") || hasValue && value == "" {
			return ansBadParams
		}
		seen[key] = true
		switch {
		case key == "SIZE" && c.verb == verbMail:
			n, err := strconv.ParseInt(value, 10, 63)
			if value == "" || strings.Trim(value, "0123456789") != "" || len(value) > 20 {
				return ansBadParams
			}
			if c.size = n; err != nil {
				c.size = -1
			}
			continue
		case key == "SMTPUTF8" && c.verb == verbMail:
			c.utf8 = true
		case !isASCII(param):
			return ansBadParams
		}
		c.params += " " + param
	}
	return ansNone
}

// validKeyword is esmtp-keyword of RFC 5321 section 4.1.2, in upper case.
func validKeyword(s string) bool {
	for i, b := range []byte(s) {
		alnum := b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
		if !alnum && (i == 0 || b != '-') {
			return false
		}
	}
	return s != ""
}

// forGoSMTP is the line that go-smtp gets to see. Its own parser loses quotes,
// so it never sees an address of a client: a placeholder stands for it, and
// the session takes the path from the command.
func (c *command) forGoSMTP(line []byte) []byte {
	switch c.verb {
	case verbMail:
		return []byte("MAIL FROM:<sender@x>" + c.params)
	case verbRcpt:
		return []byte("RCPT TO:<recipient@x>" + c.params)
	case verbEhlo, verbHelo:
		return []byte(string(c.verb) + " " + c.arg)
	case verbAuth:
		return bytes.Clone(line)
	}
	return []byte(c.verb)
}
