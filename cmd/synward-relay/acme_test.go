package main

import (
	"crypto/tls"
	"encoding/json"
	"net"
	netsmtp "net/smtp"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/acme"
	"github.com/synward/synward/relay/acme/acmetest"
)

// TestCertificateByACME: the real process, in its sandbox, gets a certificate over
// an inherited listener, and renews it under a session that goes on.
func TestCertificateByACME(t *testing.T) {
	dir, bin := build(t)
	answers, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	port := answers.Addr().(*net.TCPAddr).Port
	p := startWith(t, dir, bin, ",80/http-01", answers)
	answers.Close()
	a := acmetest.New(t, port, 9)
	set := relay.Settings{Hostname: "localhost", ACME: &acme.Config{Directory: a.Directory, CAPEM: a.CAPEM, Challenge: acme.HTTP01, Hostname: "localhost"}}
	if code, text := p.ask("PUT", "/v1/settings", set); code != 200 {
		t.Fatalf("settings: %d %s\n%s", code, text, p.said())
	}
	first, session := p.until(func(_, issuer string) bool { return strings.HasPrefix(issuer, "Pebble") })
	if st := p.certificate(); st.Error != "" || st.NotAfter.IsZero() {
		t.Errorf("status %+v", st)
	}
	p.until(func(serial, issuer string) bool { return strings.HasPrefix(issuer, "Pebble") && serial != first })
	if err := session.Noop(); err != nil {
		t.Errorf("the renewal has ended a session: %v", err)
	}
	p.terminate()
}

// until connects again and again until the certificate is one that is wanted,
// and returns its serial number and the session.
func (p *process) until(wanted func(serial, issuer string) bool) (serial string, c *netsmtp.Client) {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		c, serial, issuer := p.session()
		if wanted(serial, issuer) {
			return serial, c
		}
		c.Close()
	}
	p.t.Fatalf("no such certificate\n%s", p.said())
	return "", nil
}

func (p *process) session() (c *netsmtp.Client, serial, issuer string) {
	p.t.Helper()
	c, err := netsmtp.Dial(p.smtp)
	if err == nil {
		err = c.StartTLS(&tls.Config{InsecureSkipVerify: true})
	}
	if err != nil {
		p.t.Fatalf("connect: %v\n%s", err, p.said())
	}
	p.t.Cleanup(func() { c.Close() })
	state, _ := c.TLSConnectionState()
	leaf := state.PeerCertificates[0]
	return c, leaf.SerialNumber.String(), leaf.Issuer.CommonName
}

func (p *process) certificate() acme.Status {
	p.t.Helper()
	_, text := p.ask("GET", "/v1/status", nil)
	var st struct {
		Certificate acme.Status `json:"certificate"`
	}
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		p.t.Fatal(err)
	}
	return st.Certificate
}
