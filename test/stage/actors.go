package stage

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"strings"
	"time"

	"github.com/synward/synward/test/lab"
)

// Knock dials an address and says what a person would see: "220 …" (the
// greeting), "silence", "refused" or another error.
func Knock(h *lab.Host, to string, patience time.Duration) string {
	return KnockFrom(h, "", to, patience)
}

// KnockFrom is Knock from one of the host's addresses; empty = any. At a port
// whose TLS begins with the first byte it says hello first, and hears
// "greeting in TLS".
func KnockFrom(h *lab.Host, from, to string, patience time.Duration) string {
	c, err := h.Dial(from, to, patience)
	var ne net.Error
	switch {
	case errors.As(err, &ne) && ne.Timeout():
		return "silence"
	case err != nil && strings.Contains(err.Error(), "connection refused"):
		return "refused"
	case err != nil:
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, port, _ := net.SplitHostPort(to); port == "465" {
		if err := tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake(); err != nil {
			return "no TLS: " + err.Error()
		}
		return "greeting in TLS"
	}
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	if err != nil {
		return "no greeting: " + err.Error()
	}
	return strings.TrimSpace(string(buf[:n]))
}

// Letter is a mail to be submitted.
type Letter struct {
	User, Password string
	From, To       string
	Data           string
}

// Submit sends a letter from a host to the edge: port 465 by TLS from the first
// byte, any other with STARTTLS. The error is the edge's reply.
func (s *Stage) Submit(h *lab.Host, to string, l Letter) error {
	c, err := h.Dial("", to, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	cfg := &tls.Config{RootCAs: s.certs.pool, ServerName: "edge.example"}
	_, port, _ := net.SplitHostPort(to)
	if port == "465" {
		c = tls.Client(c, cfg)
	}
	client, err := smtp.NewClient(c, "edge.example")
	if err != nil {
		return err
	}
	defer client.Close()
	if port != "465" {
		if err := client.StartTLS(cfg); err != nil {
			return fmt.Errorf("STARTTLS: %w", err)
		}
	}
	if l.User != "" {
		if err := client.Auth(smtp.PlainAuth("", l.User, l.Password, "edge.example")); err != nil {
			return fmt.Errorf("AUTH: %w", err)
		}
	}
	return send(client, l)
}

func send(client *smtp.Client, l Letter) error {
	if err := client.Mail(l.From); err != nil {
		return fmt.Errorf("MAIL: %w", err)
	}
	if err := client.Rcpt(l.To); err != nil {
		return fmt.Errorf("RCPT: %w", err)
	}
	w, err := client.Data()
	if err != nil {
		return fmt.Errorf("DATA: %w", err)
	}
	if _, err := w.Write([]byte(l.Data)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("end of DATA: %w", err)
	}
	return client.Quit()
}
