// Package nameservertest has name servers on this host, for tests.
package nameservertest

import (
	"net"
	"testing"

	"github.com/miekg/dns"
)

// Serve has a handler answer on a free port of 127.0.0.1, UDP and TCP, until the
// test ends, and returns its address.
func Serve(t testing.TB, h dns.Handler) string {
	t.Helper()
	pc, ln := Listen(t)
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: ln, Handler: h}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return pc.LocalAddr().String()
}

// Listen takes a port that is free for UDP and for TCP: another program may have
// that of the one taken by the other.
func Listen(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	var err error
	for range 20 {
		var pc net.PacketConn
		if pc, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			break
		}
		ln, lerr := net.Listen("tcp", pc.LocalAddr().String())
		if lerr == nil {
			return pc, ln
		}
		err = lerr
		pc.Close()
	}
	t.Fatal(err)
	return nil, nil
}
