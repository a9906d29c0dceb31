package deliver

import (
	"bytes"
	"errors"
	"io"
)

// errUnclean is a body that must not go out: a bare CR or LF could end the
// message early at a careless server (SMTP smuggling), and RFC 5322 has no NUL.
var errUnclean = errors.New("the message has a bare CR, a bare LF or a NUL")

// errEightBit is a body that the next hop cannot take (RFC 6152 3).
var errEightBit = errors.New("the message has 8-bit octets and the next hop does not take them (8BITMIME)")

// copyDots writes a body, by way of buf, as DATA wants it: lines that begin with a dot get
// another (RFC 5321 4.5.2), a last line without an end gets one. It does not
// write the final dot. On errUnclean what was written so far is harmless only
// if the connection is closed then. The same with errEightBit, where sevenBit is set.
func copyDots(w io.Writer, r io.Reader, buf []byte, sevenBit bool) error {
	s := dotState{lineStart: true, sevenBit: sevenBit}
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := s.write(w, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return s.end(w)
		}
		if err != nil {
			return err
		}
	}
}

type dotState struct {
	lineStart bool
	sevenBit  bool
	cr        bool // the last octet was a CR, not yet written
}

// write takes the body in pieces and hands on whole stretches of it.
func (s *dotState) write(w io.Writer, b []byte) error {
	if bytes.IndexByte(b, 0) >= 0 {
		return errUnclean
	}
	if s.sevenBit && !isASCII(string(b)) {
		return errEightBit
	}
	for len(b) > 0 {
		if s.cr {
			if b[0] != '\n' {
				return errUnclean
			}
			if _, err := io.WriteString(w, "\r\n"); err != nil {
				return err
			}
			s.cr, s.lineStart, b = false, true, b[1:]
			continue
		}
		if s.lineStart && b[0] == '.' {
			if _, err := io.WriteString(w, "."); err != nil {
				return err
			}
		}
		// Up to the next LF; before it only its own CR may be.
		n := bytes.IndexByte(b, '\n')
		line := b
		if n >= 0 {
			line = b[:n+1]
		}
		cr := bytes.IndexByte(line, '\r')
		switch {
		case n >= 0 && (cr < 0 || cr != n-1), n < 0 && cr >= 0 && cr != len(line)-1:
			return errUnclean
		case n < 0 && cr >= 0:
			s.cr, line = true, line[:cr]
			b = nil
		default:
			b = b[len(line):]
		}
		if len(line) > 0 {
			s.lineStart = n >= 0
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *dotState) end(w io.Writer) error {
	if s.cr {
		return errUnclean
	}
	if s.lineStart {
		return nil
	}
	_, err := io.WriteString(w, "\r\n")
	return err
}
