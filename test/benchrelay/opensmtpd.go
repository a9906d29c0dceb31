package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// opensmtpd is Debian's OpenSMTPD, unpacked into a folder of the bench's: its
// package and Postfix's cannot be installed together. It runs in a mount
// namespace of its own, where its spool, its socket and its two users are; the
// system sees none of them. Debian 12's 6.8 fails every TLS handshake, so that
// it is measured without TLS.
type opensmtpd struct {
	env     *stage
	dir     string
	program string
	port    int
	cmd     *exec.Cmd
	ended   chan error
	log     *os.File
}

// newOpenSMTPD takes the folder that the package is unpacked in.
func newOpenSMTPD(env *stage, root string) *opensmtpd {
	return &opensmtpd{env: env, dir: filepath.Join(env.dir, "opensmtpd"), program: filepath.Join(root, "usr/sbin/smtpd")}
}

func (o *opensmtpd) name() string { return "opensmtpd" }

func (o *opensmtpd) syncs() string { return "nothing: two files for each message, no fsync" }

func (o *opensmtpd) address(plain bool) string {
	if !plain {
		return ""
	}
	return fmt.Sprintf("127.0.0.1:%d", o.port)
}

func (o *opensmtpd) pid() int { return o.cmd.Process.Pid }

// A session has as many messages as it likes, and the next connection to the sink
// need not wait for seconds, which is meant for strangers.
const smtpdConf = `smtp limit max-mails 100000000
mta limit conn-delay-host 0
mta limit conn-delay-route 0
mta limit conn-delay-source 0
mta limit conn-delay-connector 0
mta limit conn-delay-relay 0
mta limit conn-delay-domain 0
listen on 127.0.0.1 port %d hostname %s
action "relay" relay host smtp://127.0.0.1:%d
match from any for any action "relay"
`

// The two users of Debian's package, by numbers that nobody has.
const (
	smtpdPasswd = "opensmtpd:x:64901:64901::/var/lib/opensmtpd/empty:/usr/sbin/nologin\nopensmtpq:x:64902:64902::/var/lib/opensmtpd/empty:/usr/sbin/nologin\n"
	smtpdGroup  = "opensmtpd:x:64901:\nopensmtpq:x:64902:\n"
)

const smtpdScript = `set -e
for at in etc/passwd etc/group etc/resolv.conf var/spool var/lib run; do mount --bind "$1/$at" "/$at"; done
exec "$2" -d -f "$1/smtpd.conf"
`

func (o *opensmtpd) start(ctx context.Context) (err error) {
	if o.port, err = freePort(); err != nil {
		return err
	}
	for _, d := range []string{"etc", "var/spool/smtpd", "var/lib/opensmtpd/empty", "run"} {
		if err := os.MkdirAll(filepath.Join(o.dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(o.dir, "var/spool/smtpd"), 0o711); err != nil {
		return err
	}
	for file, more := range map[string]string{"etc/passwd": smtpdPasswd, "etc/group": smtpdGroup} {
		b, err := os.ReadFile("/" + file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(o.dir, file), []byte(strings.TrimRight(string(b), "\n")+"\n"+more), 0o644); err != nil {
			return err
		}
	}
	// It asks for the name of each client: of the hosts file, as DNS may be slow here.
	if err := os.WriteFile(filepath.Join(o.dir, "etc/resolv.conf"), []byte("lookup file\n"), 0o644); err != nil {
		return err
	}
	conf := fmt.Sprintf(smtpdConf, o.port, hostname, o.env.sink.port())
	if err := os.WriteFile(filepath.Join(o.dir, "smtpd.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	if o.log, err = os.Create(filepath.Join(o.dir, "log")); err != nil {
		return err
	}
	o.cmd = exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", smtpdScript, "sh", o.dir, o.program)
	o.cmd.Stdout, o.cmd.Stderr = o.log, o.log
	o.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := o.cmd.Start(); err != nil {
		return err
	}
	o.ended = make(chan error, 1)
	go func() { o.ended <- o.cmd.Wait() }()
	if err := answers(o.address(true), o.ended); err != nil {
		said, _ := os.ReadFile(o.log.Name())
		return fmt.Errorf("%w: %s", err, said)
	}
	return nil
}

func (o *opensmtpd) stop() error { return end(o.cmd.Process, o.ended) }
