// Command upgrade installs synward's package (.deb or .rpm) in a root that
// systemd runs. While strangers knock and clients send mail it kills the agent,
// lets one hang until the watchdog ends it, and upgrades the package; then it
// removes it. It ends with 0 only where no stranger was answered, no client was
// refused, no open connection broke and no accepted mail is lost. On the way it
// runs what the operator's pages, and then the README, have for a whole host.
// `make package-test` runs it; it needs root and systemd-nspawn.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/synward/synward/test/lab"
)

func main() {
	root := flag.String("root", "", "a Debian root with systemd, iproute2 and procps; it is changed")
	from := flag.String("old", "", "the package to begin with")
	to := flag.String("new", "", "the package to upgrade to")
	flag.Parse()
	t := &story{}
	err := t.tell(*root, *from, *to)
	t.end()
	if err != nil {
		fmt.Fprintln(os.Stderr, "upgrade:", err)
		os.Exit(1)
	}
	fmt.Println("\nNothing was let in, refused, broken or lost.")
}

const config = `[filter]
interfaces = ["eth0", "eth1"]
mode       = "enforce"
[log]
format = "journal"
[relay]
enabled  = true
hostname = "edge.example"
listen   = [{ port = 587, tls = "starttls" }, { port = 465, tls = "implicit" }]
`

// tell is the whole story; a step that cannot be set ends it by a panic.
func (s *story) tell(root, from, to string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	edge, client, stranger := lab.NewHost(s, "edge"), lab.NewHost(s, "client"), lab.NewHost(s, "stranger")
	lab.Connect(edge, "eth0", client, "eth0")
	lab.Connect(edge, "eth1", stranger, "eth0")
	edge.Address("eth0", "192.0.2.1/24")
	edge.Address("eth1", "198.51.100.1/24")
	client.Address("eth0", "192.0.2.10/24")
	stranger.Address("eth0", "198.51.100.66/24")
	m := boot(s, root, edge.Name, from, to)

	s.step("install %s", from)
	m.install()
	// no default route here: the packaged configuration waits for one
	if out := m.run("", "synward", "status"); !strings.Contains(out, "protects nothing") {
		return fmt.Errorf("freshly installed, without a default route, status says:\n%s", out)
	}
	m.write("/etc/synward/synward.toml", config)
	m.run("", "systemctl", "restart", "synward")
	m.run("", "synward", "allow", "add", "192.0.2.0/24", "--rate", "0", "--max-conns", "0") // no cap shall be met here
	m.run("a long password\n", "synward", "user", "add", "alice", "--senders", "example.net")
	s.step("systemd-analyze: %s", lastLine(m.run("", "systemd-analyze", "security", "--no-pager", "synward.service")))

	traffic := begin(s, edge, client, stranger)
	s.step("traffic: %s", traffic.await(20))
	if err := s.kill(m, traffic); err != nil {
		return err
	}
	if err := s.hang(m, traffic); err != nil {
		return err
	}
	began := time.Now()
	m.upgrade()
	s.step("upgraded under it in %s", time.Since(began).Round(time.Millisecond))
	before := traffic.total()
	traffic.await(before + 20)
	sent, err := traffic.end()
	s.step("traffic over the upgrade: %s", traffic)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, m.log())
	}
	if err := s.check(m, sent); err != nil {
		return err
	}
	if err := s.followPages(m, "docs/operator", to); err != nil {
		return err
	}
	m.keepPrograms()
	s.step("remove, with all that goes with it")
	if err := m.remove(); err != nil || m.rpm {
		return err
	}
	return s.followReadme(m, "README.md")
}

// check looks at the upgraded host: what runs is what is installed, every
// accepted mail is in the queue, for there is no next hop, and the log is in the
// journal.
func (s *story) check(m *machine, sent int) error {
	var status struct {
		Agent struct{ Version string }
		Relay struct {
			Own struct {
				Version string
				Queue   struct{ Items int }
			}
		}
	}
	if err := json.Unmarshal([]byte(m.run("", "synward", "status", "--json")), &status); err != nil {
		return fmt.Errorf("read the status: %w", err)
	}
	if v := m.version(); status.Agent.Version != v || status.Relay.Own.Version != v {
		return fmt.Errorf("%s is installed, but the agent is %s and the relay %s", v, status.Agent.Version, status.Relay.Own.Version)
	}
	s.step("%d mails were accepted, %d are in the queue", sent, status.Relay.Own.Queue.Items)
	if sent == 0 || status.Relay.Own.Queue.Items < sent { // more: taken, but the client has not heard it
		return fmt.Errorf("%d mails were accepted, but %d are in the queue", sent, status.Relay.Own.Queue.Items)
	}
	out := m.run("", "journalctl", "--no-pager", "-o", "json", "SYNWARD_SOURCE=192.0.2.10", "-n", "1", "--output-fields=MESSAGE,SYNWARD_SESSION")
	if !strings.Contains(out, `"SYNWARD_SESSION"`) {
		return fmt.Errorf("the journal has no session of the client: %s", out)
	}
	return nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
