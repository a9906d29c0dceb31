package clients

import (
	"context"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synward/synward/relay/deliver"
	"github.com/synward/synward/relay/queue"
)

// The instance is the test's own: the system's configuration is not touched.
// It takes mail on loopback, sends it on through the relay with TLS and a
// login, and throws away what is for final.example.
const mainCF = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
myhostname = postfix.example
mydestination =
alias_maps =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_relay_restrictions = permit_mynetworks, reject
transport_maps = inline:{final.example=discard:}
relayhost = [127.0.0.1]:%[2]s
smtp_dns_support_level = disabled
smtp_tls_security_level = encrypt
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = texthash:%[1]s/conf/passwd
smtp_sasl_tls_security_options = noanonymous
`

const masterCF = `127.0.0.1:%s inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

// startPostfix returns the port that it listens on, and its log's path.
func startPostfix(t *testing.T, f *front) (port, log string) {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "synward-postfix-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatalf("%v: install postfix, as .ci/run does", err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	errs := []error{os.Chmod(dir, 0o755)}
	for _, d := range []string{"conf", "queue", "data"} {
		errs = append(errs, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	errs = append(errs, os.Chown(filepath.Join(dir, "data"), uid, -1))
	for name, text := range map[string]string{
		"main.cf": fmt.Sprintf(mainCF, dir, f.starttls), "master.cf": fmt.Sprintf(masterCF, port),
		"passwd": fmt.Sprintf("[127.0.0.1]:%s alice:%s\n", f.starttls, password),
	} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, "conf", name), []byte(text), 0o644))
	}
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "conf")
	if out, err := run(t, "", "postfix", "-c", conf, "check"); err != nil {
		t.Fatalf("postfix check: %v: %s", err, out)
	}
	master := exec.Command("/usr/lib/postfix/sbin/master", "-c", conf, "-d")
	master.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it ends its group when it is ended
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Process.Signal(syscall.SIGTERM); master.Wait() })
	eventually(t, "postfix answers", func() bool {
		c, err := smtp.Dial("127.0.0.1:" + port)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
	return port, filepath.Join(dir, "log")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// TestPostfix is both ways: one that relays through us with SASL, and one that
// we deliver to.
func TestPostfix(t *testing.T) {
	f := start(t)
	port, log := startPostfix(t, f)
	said := func() string { b, _ := os.ReadFile(log); return string(b) }
	if err := smtp.SendMail("127.0.0.1:"+port, nil, "alice@example.org", []string{"bob@example.com"}, []byte(letter)); err != nil {
		t.Fatalf("%v\n%s", err, said())
	}
	eventually(t, "postfix hands it on to us", func() bool { return len(f.q.List()) == 1 || strings.Contains(said(), "status=deferred") })
	if len(f.q.List()) == 0 {
		t.Fatalf("postfix does not hand it on:\n%s", said())
	}
	its := f.q.List()[0]
	f.arrived(t, said(), nil, text)
	if its.Helo != "postfix.example" {
		t.Errorf("it came from %s", its.Helo)
	}

	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	engine := deliver.New(deliver.Options{Queue: f.q})
	engine.Configure(deliver.Settings{Hostname: "relay.example", Router: deliver.SmartHosts{{Host: "127.0.0.1", Port: n, TLS: deliver.Plain}}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	env := queue.Envelope{From: "alice@example.org", Rcpts: []queue.Recipient{{Addr: "carol@final.example"}, {Addr: `"d e"@final.example`}}}
	if _, err := f.q.Add(ctx, env, strings.NewReader(letter)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "postfix has it", func() bool { return len(f.q.List()) == 0 && strings.Count(said(), "status=sent (final.example)") == 2 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
