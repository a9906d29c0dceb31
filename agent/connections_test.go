package agent

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/synward/synward/agent/control"
)

// A connection is found and ended by both families, and by IPv4 on a socket
// of both.
func TestConnectionsAreFoundAndEnded(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root: it ends connections")
	}
	for name, c := range map[string]struct{ network, listen, dial string }{
		"IPv4":         {"tcp4", "127.0.0.1:0", "127.0.0.1"},
		"IPv6":         {"tcp6", "[::1]:0", "::1"},
		"IPv4 on both": {"tcp", ":0", "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen(c.network, c.listen)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			port := l.Addr().(*net.TCPAddr).Port
			client, err := net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr(c.dial), uint16(port)).String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			conns, err := connections([]uint16{uint16(port)})
			if err != nil {
				t.Fatal(err)
			}
			source := client.LocalAddr().(*net.TCPAddr).AddrPort()
			i := slices.IndexFunc(conns, func(found control.Connection) bool { return found.Source == source })
			if len(conns) != 1 || i < 0 {
				t.Fatalf("found %v, want one from %s", conns, source)
			}
			if err := destroy(conns[i]); err != nil {
				t.Fatal(err)
			}
			client.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
				t.Errorf("the client reads on: %v", err)
			}
			if err := destroy(conns[i]); err != nil {
				t.Errorf("a connection that has gone: %v", err)
			}
			again, err := net.Dial("tcp", client.RemoteAddr().String())
			if err != nil {
				t.Fatalf("the listener went with it: %v", err)
			}
			again.Close()
		})
	}
}
