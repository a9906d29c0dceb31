package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/acme"
)

func examineAgent(_ context.Context, p *patient) []finding {
	st := p.status
	switch {
	case errors.Is(p.unheard, control.ErrHangs):
		return []finding{fail("agent", "systemctl restart synward", "it hangs: there is no answer at %s", p.file.Control.Socket)}
	case errors.Is(p.unheard, control.ErrDown):
		return []finding{warn("agent", "systemctl start synward", "none answers at %s", p.file.Control.Socket)}
	case p.unheard != nil:
		return []finding{warn("agent", "sudo synward doctor", "%s", oneLine(p.unheard))}
	}
	out := []finding{}
	for _, problem := range st.Problems {
		out = append(out, fail("agent", "journalctl -u synward", "%s", problem))
	}
	if st.Filter.Mode == "observe" {
		out = append(out, warn("mode", "mode = \"enforce\" in the configuration, then systemctl reload synward", "observe: nothing is dropped"))
	}
	if len(out) == 0 {
		out = append(out, ok("agent", "runs, version %s, pid %d", st.Agent.Version, st.Agent.PID))
	}
	return out
}

// examinePorts tries whether the relay's ports are to be had, where it does
// not hold them already.
func examinePorts(ctx context.Context, p *patient) []finding {
	if !p.file.Relay.Enabled || p.status != nil && p.status.Relay != nil && p.status.Relay.Running {
		return nil
	}
	var out []finding
	ports := slices.Clone(p.file.Relay.Listen)
	if p.file.Relay.ACME.Enabled {
		_, l := p.file.Relay.ACME.Listener()
		ports = append(ports, l)
	}
	for _, l := range ports {
		check := fmt.Sprintf("port %d", l.Port)
		at := net.JoinHostPort(l.Address, strconv.Itoa(int(l.Port)))
		sock, err := new(net.ListenConfig).Listen(ctx, "tcp", at)
		switch {
		case err == nil:
			sock.Close()
			out = append(out, ok(check, "free"))
		case errors.Is(err, syscall.EADDRINUSE):
			out = append(out, fail(check, fmt.Sprintf("ss -ltnp 'sport = :%d' names it; stop it, or take the port out of relay.listen", l.Port), "another program has it"))
		default:
			out = append(out, warn(check, "sudo synward doctor", "%v", err))
		}
	}
	return out
}

// expiring is how long before its end a certificate is worth a warning.
const expiring = 14 * 24 * time.Hour

// leastSpool is the room that the spool should have: three segments and more.
const leastSpool = 1 << 30

func examineRelay(_ context.Context, p *patient) []finding {
	c := p.file.Relay
	if !c.Enabled {
		return []finding{ok("relay", "not enabled")}
	}
	cert := certificate
	if c.ACME.Enabled {
		cert = func(c relay.Config, now time.Time) finding { return acmeCertificate(c, statusRelay(p), now) }
	}
	out := []finding{cert(c, time.Now()), spool(c.Spool)}
	if _, err := user.Lookup(c.User); err != nil {
		out = append(out, fail("relay user", "useradd --system --no-create-home --shell /usr/sbin/nologin "+c.User, "no user %q", c.User))
	}
	if r := statusRelay(p); r != nil && !r.Running {
		out = append(out, fail("relay", "journalctl -u synward", "does not run: %s", r.Error))
	}
	if len(c.Smarthost) == 0 && len(c.Route) == 0 && !c.MX.Enabled {
		out = append(out, warn("next hop", "add [[relay.smarthost]], or [relay.mx] enabled = true", "none: mail is accepted and waits"))
	}
	return out
}

func certificate(c relay.Config, now time.Time) finding {
	const check = "certificate"
	if c.TLS.Cert == "" {
		return warn(check, "relay.tls = { cert = …, key = … }, or [relay.acme]", "none: a self-signed one is made in memory, which clients do not trust")
	}
	b, err := os.ReadFile(c.TLS.Cert)
	if err != nil {
		return fail(check, "mend relay.tls.cert", "%v", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return fail(check, "mend relay.tls.cert", "%s holds no PEM", c.TLS.Cert)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fail(check, "mend relay.tls.cert", "%s: %v", c.TLS.Cert, err)
	}
	left := leaf.NotAfter.Sub(now)
	switch {
	case left <= 0:
		return fail(check, "renew it, then systemctl reload synward", "%s is over since %s", c.TLS.Cert, leaf.NotAfter.Format(time.DateOnly))
	case leaf.VerifyHostname(c.Hostname) != nil:
		return fail(check, "get one for "+c.Hostname, "%s is not for %s but for %s", c.TLS.Cert, c.Hostname, strings.Join(leaf.DNSNames, ", "))
	case left < expiring:
		return warn(check, "renew it, then systemctl reload synward", "%s ends in %s", c.TLS.Cert, span(left))
	}
	return ok(check, "for %s, until %s", c.Hostname, leaf.NotAfter.Format(time.DateOnly))
}

// acmeCertificate is what the running relay says of the one that it keeps.
func acmeCertificate(c relay.Config, r *control.RelayStatus, now time.Time) finding {
	const check = "certificate"
	var own struct {
		Certificate *acme.Status `json:"certificate"`
	}
	if r == nil || len(r.Own) == 0 || json.Unmarshal(r.Own, &own) != nil || own.Certificate == nil {
		return warn(check, "systemctl start synward", "by ACME: the relay gets it when it runs")
	}
	st := own.Certificate
	left := st.NotAfter.Sub(now)
	switch {
	case st.Error != "" && left <= expiring: // or there is none
		return fail(check, "journalctl -u synward; tried again "+st.Next.Format(time.DateTime), "%s", st.Error)
	case st.Error != "":
		return warn(check, "journalctl -u synward; tried again "+st.Next.Format(time.DateTime), "not renewed, ends in %s: %s", span(left), st.Error)
	case st.NotAfter.IsZero():
		return warn(check, "synward doctor, in a minute", "by ACME: is being asked for")
	}
	return ok(check, "for %s, by %s, until %s", c.Hostname, st.Issuer, st.NotAfter.Format(time.DateOnly))
}

func spool(dir string) finding {
	var st unix.Statfs_t
	at := dir
	err := unix.Statfs(at, &st)
	for ; errors.Is(err, unix.ENOENT) && at != "/"; err = unix.Statfs(at, &st) {
		at = filepath.Dir(at)
	}
	if err != nil {
		return fail("spool", "install -d -m 0700 "+dir, "%s: %v", dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	if free < leastSpool {
		return warn("spool", "df -h "+at, "%s has %d MiB free; give it 1 GiB", at, free>>20)
	}
	return ok("spool", "%s, %d GiB free", dir, free>>30)
}

// examineOpenRelay does to every listener what a spammer does: it asks it to
// relay between two domains that are nobody's. No message is sent.
func examineOpenRelay(ctx context.Context, p *patient) []finding {
	if r := statusRelay(p); r == nil || !r.Running {
		return nil
	}
	var out []finding
	for _, l := range p.file.Relay.Listen {
		host := l.Address
		if host == "" || host == "0.0.0.0" || host == "::" {
			host = "127.0.0.1"
		}
		check := fmt.Sprintf("open relay, port %d", l.Port)
		reply, err := tryRelay(ctx, net.JoinHostPort(host, strconv.Itoa(int(l.Port))), l.TLS == relay.TLSImplicit)
		switch {
		case err != nil:
			out = append(out, warn(check, "synward status", "cannot be tried: %v", err))
		case reply == "":
			out = append(out, fail(check, "synward allow list --covering "+host+": remove the entry that has relay=yes", "it took a recipient of a strange domain without AUTH"))
		default:
			out = append(out, ok(check, "refused: %s", reply))
		}
	}
	return out
}

// tryRelay returns the reply that refused to relay, "" where nothing did.
func tryRelay(ctx context.Context, at string, implicit bool) (string, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", at)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(15 * time.Second))
	// It is our own relay that is spoken to, whatever its certificate.
	unverified := &tls.Config{InsecureSkipVerify: true}
	if implicit {
		conn = tls.Client(conn, unverified)
	}
	c, err := smtp.NewClient(conn, "localhost")
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.Hello("doctor.invalid"); err != nil {
		return "", err
	}
	if has, _ := c.Extension("STARTTLS"); has && !implicit {
		if err := c.StartTLS(unverified); err != nil {
			return "", err
		}
	}
	if err := c.Mail("doctor@sender.invalid"); err != nil {
		return refusal(err)
	}
	return refusal(c.Rcpt("doctor@recipient.invalid"))
}

func refusal(err error) (string, error) {
	var reply *textproto.Error
	if errors.As(err, &reply) {
		first, _, _ := strings.Cut(reply.Error(), "\n")
		return first, nil
	}
	return "", err
}
