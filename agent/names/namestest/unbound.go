package namestest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/synward/synward/nameserver/nameservertest"
)

// Unbound starts Debian's unbound on a free port of 127.0.0.1, until the test
// ends; it gets all of example. from a server such as a Zone. It returns its
// address.
func Unbound(t testing.TB, authority string) string {
	t.Helper()
	bin, err := exec.LookPath("unbound")
	if err != nil {
		t.Fatal("unbound is missing: apt-get install unbound")
	}
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	addr := freePort(t)
	conf := fmt.Sprintf(unboundConf, addr.Port, dir, filepath.Join(dir, "pid"), host, port)
	if err := os.WriteFile(filepath.Join(dir, "unbound.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-d", "-c", filepath.Join(dir, "unbound.conf"))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
	})
	q := new(dns.Msg)
	q.SetQuestion("up.example.", dns.TypeA)
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if m, err := dns.Exchange(q, addr.String()); err == nil && m.Rcode != dns.RcodeServerFailure {
			return addr.String()
		}
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(log.Name())
			t.Fatalf("unbound does not answer: %s", out)
		}
	}
}

func freePort(t testing.TB) *net.UDPAddr {
	t.Helper()
	pc, ln := nameservertest.Listen(t)
	defer pc.Close()
	defer ln.Close()
	return pc.LocalAddr().(*net.UDPAddr)
}

const unboundConf = `server:
	interface: 127.0.0.1
	port: %d
	access-control: 127.0.0.0/8 allow
	username: ""
	chroot: ""
	directory: %q
	pidfile: %q
	use-syslog: no
	module-config: "iterator"
	do-not-query-localhost: no
	do-ip6: no
	num-threads: 1
	outgoing-range: 64
	num-queries-per-thread: 32
	so-rcvbuf: 0
	local-zone: "example." nodefault
	unblock-lan-zones: yes
	infra-host-ttl: 0
remote-control:
	control-enable: no
stub-zone:
	name: "example."
	stub-addr: %s@%s
`
