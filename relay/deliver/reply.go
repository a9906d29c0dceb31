package deliver

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Reply is an SMTP reply. Text has its lines joined with spaces and without the
// enhanced code (RFC 2034).
type Reply struct {
	Code     int
	Enhanced string // "" where the server gave none
	Text     string
	lines    []string
}

// String returns the reply on one line, safe for logs and bounces.
func (r Reply) String() string {
	s := strconv.Itoa(r.Code)
	if r.Enhanced != "" {
		s += " " + r.Enhanced
	}
	if r.Text != "" {
		s += " " + r.Text
	}
	return s
}

func (r Reply) positive() bool  { return r.Code/100 == 2 }
func (r Reply) permanent() bool { return r.Code/100 == 5 }

// status is the RFC 3463 status for a report.
func (r Reply) status() string {
	if r.Enhanced != "" {
		return r.Enhanced
	}
	return fmt.Sprintf("%d.0.0", r.Code/100)
}

const (
	maxReplyLine  = 2048 // RFC 5321 has 512; some say more
	maxReplyLines = 100
	maxReplyText  = 1000
)

var errReply = errors.New("bad reply")

// readReply reads one reply, however many lines it has, within bounds.
// The reader's buffer is the longest line that is taken.
func readReply(r *bufio.Reader) (Reply, error) {
	var rep Reply
	for range maxReplyLines {
		raw, err := r.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			return Reply{}, fmt.Errorf("%w: line too long", errReply)
		}
		if err != nil {
			return Reply{}, err
		}
		line := strings.TrimRight(string(raw), "\r\n")
		code, text, last, ok := splitLine(line)
		if !ok || rep.Code != 0 && code != rep.Code {
			return Reply{}, fmt.Errorf("%w: %.80q", errReply, line)
		}
		rep.Code = code
		rep.lines = append(rep.lines, text)
		if last {
			rep.tidy()
			return rep, nil
		}
	}
	return Reply{}, fmt.Errorf("%w: more than %d lines", errReply, maxReplyLines)
}

func splitLine(line string) (code int, text string, last, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return 0, "", false, false
	}
	for _, c := range []byte(line[:3]) {
		if c < '0' || c > '9' {
			return 0, "", false, false
		}
		code = code*10 + int(c-'0')
	}
	if len(line) == 3 {
		return code, "", true, true
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, "", false, false
	}
	return code, line[4:], line[3] == ' ', true
}

// tidy sets Enhanced and Text from the lines.
func (r *Reply) tidy() {
	var words []string
	for _, l := range r.lines {
		if code, rest, _ := strings.Cut(l, " "); isEnhanced(code, r.Code) {
			r.Enhanced, l = code, rest
		}
		if l != "" {
			words = append(words, clean(l))
		}
	}
	r.Text = strings.Join(words, " ")
	if len(r.Text) > maxReplyText {
		r.Text = r.Text[:maxReplyText]
	}
}

// isEnhanced says whether s is a status code of RFC 3463 that agrees with the reply's.
func isEnhanced(s string, code int) bool {
	if len(s) < 5 || int(s[0]-'0') != code/100 || s[1] != '.' {
		return false
	}
	subject, detail, ok := strings.Cut(s[2:], ".")
	return ok && isNumber(subject) && isNumber(detail)
}

// isNumber says whether s is one to three digits.
func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 3
}

// clean keeps what a server says from doing anything in a log or a bounce.
func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c < 0x20 || c > 0x7e {
			return '?'
		}
		return c
	}, s)
}
