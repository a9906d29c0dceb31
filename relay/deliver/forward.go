package deliver

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/synward/synward/relay/queue"
)

// sender is who handed a message in, as a next hop of our own is told it.
type sender struct {
	addr netip.Addr
	helo string
	user string
}

func senderOf(it queue.Item) sender { return sender{it.Source.Unmap(), it.Helo, it.User} }

// proxyHeader is what comes before all else on a connection for one message
// (PROXY protocol, version 1). We do not know the client's port, nor does
// anybody ask for it.
func (s sender) proxyHeader() string {
	switch {
	case !s.addr.IsValid():
		return "PROXY UNKNOWN\r\n"
	case s.addr.Is4():
		return fmt.Sprintf("PROXY TCP4 %s 0.0.0.0 0 25\r\n", s.addr)
	}
	return fmt.Sprintf("PROXY TCP6 %s :: 0 25\r\n", s.addr.WithZone(""))
}

// xclient is Postfix's command with those attributes that the server knows and
// we do; a message of our own has none of a client's.
func (s sender) xclient(offered string) string {
	addr, helo, user := "[UNAVAILABLE]", "[UNAVAILABLE]", "[UNAVAILABLE]"
	if s.addr.IsValid() {
		if addr = s.addr.WithZone("").String(); s.addr.Is6() {
			addr = "IPV6:" + addr
		}
	}
	if s.helo != "" {
		helo = xtext(s.helo)
	}
	if s.user != "" {
		user = xtext(s.user)
	}
	line := "XCLIENT"
	for _, a := range strings.Fields(strings.ToUpper(offered)) {
		switch a {
		case "ADDR":
			line += " ADDR=" + addr
		case "NAME":
			line += " NAME=[UNAVAILABLE]"
		case "HELO":
			line += " HELO=" + helo
		case "LOGIN":
			line += " LOGIN=" + user
		case "PROTO":
			line += " PROTO=ESMTP"
		}
	}
	return line
}

// introduce tells the next hop who the client of the coming message is. The
// session begins anew then; the server must not take it for another's.
func (c *conn) introduce(s sender) error {
	if c.hop.Forward != ForwardXCLIENT || c.told != nil && *c.told == s {
		return nil
	}
	offered, ok := c.ext["XCLIENT"]
	if !ok {
		return fmt.Errorf("the server offers no XCLIENT to us: add this host to its smtpd_authorized_xclient_hosts")
	}
	rep, err := c.cmd(s.xclient(offered))
	if err != nil {
		return c.stale(err)
	}
	if rep.Code != 220 {
		return c.stale(&replyError{"XCLIENT", rep})
	}
	if err := c.hello(c.helo); err != nil {
		return err
	}
	c.ext["XCLIENT"] = offered // where it is not said again
	c.told = &s
	return nil
}

// stale is err, or errStale where a connection that was used before may just
// have been idle for too long.
func (c *conn) stale(err error) error {
	if c.used > 0 {
		return errStale
	}
	return err
}
