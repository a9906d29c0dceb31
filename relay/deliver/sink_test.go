package deliver

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// sink is a next hop that a test plays: it says yes to all that answer does not
// answer itself.
type sink struct {
	t    testing.TB
	ln   net.Listener
	tls  *tls.Config
	ca   string
	ext  []string // what EHLO announces
	mode TLSMode

	silent bool // no greeting by itself

	// answer gives the reply to a command, or to "." for a whole message; ""
	// for the usual one, "close" to hang up.
	answer func(s *talk, line string) string

	mu    sync.Mutex
	got   []mail
	conns int
	lines []string // all commands
}

// talk is one connection to a sink.
type talk struct {
	tls   bool
	user  string
	mail  mail
	mails int
}

// mail is a message that arrived.
type mail struct {
	from  string // the whole command
	rcpts []string
	data  string // as it came over the wire, dots and all
	tls   bool
}

func newSink(t testing.TB, set func(*sink)) *sink {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{t: t, ln: ln, ext: []string{"PIPELINING", "8BITMIME", "SIZE 1000000", "SMTPUTF8", "DSN"}}
	s.tls, s.ca = selfSigned(t)
	if set != nil {
		set(s)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns++
			s.mu.Unlock()
			wg.Go(func() { s.serve(nc) })
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return s
}

func selfSigned(t testing.TB) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sink"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// hop is the way to the sink.
func (s *sink) hop(mode TLSMode) Hop {
	return Hop{Host: "127.0.0.1", Port: s.ln.Addr().(*net.TCPAddr).Port, TLS: mode, CA: s.ca}
}

func (s *sink) mails() []mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]mail(nil), s.got...)
}

func (s *sink) serve(nc net.Conn) {
	defer func() { _ = nc.Close() }()
	k := &talk{}
	if s.mode == Implicit {
		nc, k.tls = tls.Server(nc, s.tls), true
	}
	r := bufio.NewReader(nc)
	say := func(text string) bool {
		_, err := io.WriteString(nc, strings.ReplaceAll(text, "\n", "\r\n")+"\r\n")
		return err == nil
	}
	if !s.silent {
		say("220 sink")
	}
	for {
		_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		s.mu.Lock()
		s.lines = append(s.lines, line)
		s.mu.Unlock()
		rep := ""
		if s.answer != nil {
			rep = s.answer(k, line)
		}
		if rep == "" {
			rep = s.usual(k, line)
		}
		if rep == "close" || !say(rep) {
			return
		}
		switch {
		case line == "STARTTLS" && rep[0] == '2':
			nc, k.tls = tls.Server(nc, s.tls), true
			r = bufio.NewReader(nc)
		case line == "DATA" && rep[0] == '3':
			data, err := readData(r)
			if err != nil {
				return
			}
			k.mail.data, k.mail.tls = data, k.tls
			rep := ""
			if s.answer != nil {
				rep = s.answer(k, ".")
			}
			if rep == "" || rep == "close after accepting" {
				s.mu.Lock()
				s.got = append(s.got, k.mail)
				s.mu.Unlock()
				k.mails++
			}
			if rep == "" {
				rep = "250 2.0.0 ok"
			}
			if strings.HasPrefix(rep, "close") || !say(rep) {
				return
			}
		}
	}
}

func readData(r *bufio.Reader) (string, error) {
	var b bytes.Buffer
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line == ".\r\n" {
			return b.String(), nil
		}
		b.WriteString(line)
	}
}

func (s *sink) usual(k *talk, line string) string {
	verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
	switch verb {
	case "EHLO":
		ext := append([]string{"sink"}, s.ext...)
		if !k.tls && s.mode != Plain {
			ext = append(ext, "STARTTLS")
		}
		if k.tls {
			ext = append(ext, "AUTH PLAIN LOGIN")
		}
		return "250-" + strings.Join(ext[:len(ext)-1], "\n250-") + "\n250 " + ext[len(ext)-1]
	case "STARTTLS":
		return "220 go"
	case "AUTH":
		k.user = line
		return "235 2.7.0 ok"
	case "MAIL":
		k.mail = mail{from: line}
		return "250 2.1.0 ok"
	case "RCPT":
		k.mail.rcpts = append(k.mail.rcpts, line)
		return "250 2.1.5 ok"
	case "DATA":
		if len(k.mail.rcpts) == 0 {
			return "554 5.5.1 no recipients"
		}
		return "354 go"
	case "RSET", "NOOP":
		return "250 2.0.0 ok"
	case "QUIT":
		return "221 2.0.0 bye"
	}
	return "500 5.5.2 what"
}

// undot is what the recipient reads.
func undot(data string) string {
	return strings.TrimPrefix(strings.ReplaceAll("\r\n"+data, "\r\n.", "\r\n"), "\r\n")
}

var errRefused = errors.New("connection refused by the test")
