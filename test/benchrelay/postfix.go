package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// postfix is an instance of its own: its configuration, queue and state are
// below our folder, and it is started and ended by its process id. The
// system's configuration is never read nor written.
type postfix struct {
	env   *stage
	dir   string
	port  int // TLS
	plain int
	cmd   *exec.Cmd
	ended chan error
}

func newPostfix(env *stage) *postfix {
	return &postfix{env: env, dir: filepath.Join(env.dir, "postfix")}
}

func (p *postfix) name() string { return "postfix" }

func (p *postfix) syncs() string { return "a file for each message, fsync of the file" }

func (p *postfix) address(plain bool) string {
	if plain {
		return fmt.Sprintf("127.0.0.1:%d", p.plain)
	}
	return fmt.Sprintf("127.0.0.1:%d", p.port)
}

func (p *postfix) pid() int { return p.cmd.Process.Pid }

const mainCF = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = /var/tmp/none.log
myhostname = %[2]s
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = [127.0.0.1]:%[3]d
smtp_dns_support_level = disabled
smtp_tls_security_level = none
smtpd_tls_cert_file = %[4]s
smtpd_tls_key_file = %[5]s
smtpd_tls_security_level = encrypt
smtpd_sasl_auth_enable = yes
smtpd_sasl_local_domain =
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_client_connection_count_limit = 0
default_process_limit = 2000
message_size_limit = 52428800
alias_maps =
local_recipient_maps =
`

const masterCF = `127.0.0.1:%d inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
127.0.0.1:%d inet n - n - - smtpd -o smtpd_tls_security_level=none -o smtpd_sasl_auth_enable=no -o smtpd_relay_restrictions=permit_mynetworks,reject
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

const saslConf = `pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: %s/sasldb2
mech_list: PLAIN LOGIN
`

func (p *postfix) start(ctx context.Context) error {
	if err := p.configure(ctx); err != nil {
		return err
	}
	conf := filepath.Join(p.dir, "conf")
	if out, err := exec.CommandContext(ctx, "postfix", "-c", conf, "check").CombinedOutput(); err != nil {
		return fmt.Errorf("postfix check: %w: %s", err, out)
	}
	p.cmd = exec.Command("/usr/lib/postfix/sbin/master", "-c", conf, "-d")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it ends its group when it is ended
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.ended = make(chan error, 1)
	go func() { p.ended <- p.cmd.Wait() }()
	return answers(p.address(false), p.ended)
}

// configure writes all that the instance needs.
func (p *postfix) configure(ctx context.Context) (err error) {
	if p.port, err = freePort(); err != nil {
		return err
	}
	if p.plain, err = freePort(); err != nil {
		return err
	}
	for _, d := range []string{"conf/sasl", "queue", "data"} {
		if err := os.MkdirAll(filepath.Join(p.dir, d), 0o755); err != nil {
			return err
		}
	}
	uid, gid, err := ids("postfix")
	if err != nil {
		return err
	}
	if err := os.Chown(filepath.Join(p.dir, "data"), uid, gid); err != nil {
		return err
	}
	conf := fmt.Sprintf(mainCF, p.dir, hostname, p.env.sink.port(), p.env.certFile, p.env.keyFile)
	conf = strings.Replace(conf, "/var/tmp/none.log", filepath.Join(p.dir, "log"), 1)
	conf += "maillog_file_prefixes = " + p.dir + "\n"
	for name, text := range map[string]string{
		"conf/main.cf": conf, "conf/master.cf": fmt.Sprintf(masterCF, p.port, p.plain), "conf/sasl/smtpd.conf": fmt.Sprintf(saslConf, p.dir),
	} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	db := filepath.Join(p.dir, "sasldb2")
	name, realm, _ := strings.Cut(login, "@")
	cmd := exec.CommandContext(ctx, "saslpasswd2", "-p", "-c", "-f", db, "-u", realm, name)
	cmd.Stdin = bytes.NewReader([]byte(password))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("saslpasswd2: %w: %s", err, out)
	}
	return os.Chown(db, uid, gid)
}

func (p *postfix) stop() error { return end(p.cmd.Process, p.ended) }

// answers waits until a server takes connections.
func answers(addr string, ended <-chan error) error {
	var err error
	for stop := time.Now().Add(20 * time.Second); time.Now().Before(stop); time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-ended:
			return fmt.Errorf("it ended: %w", err)
		default:
		}
		var c net.Conn
		if c, err = net.Dial("tcp", addr); err == nil {
			return c.Close()
		}
	}
	return err
}
