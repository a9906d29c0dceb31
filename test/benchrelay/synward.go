package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/account"
	"github.com/synward/synward/relay/quota"
)

// synward is the relay's real process, sandboxed and as a user of its own,
// started as the agent starts it.
type synward struct {
	env    *stage
	dir    string
	binary string
	addr   string // TLS
	plain  string
	cmd    *exec.Cmd
	ended  chan error
	log    *os.File
}

func newSynward(env *stage, binary string) *synward {
	return &synward{env: env, dir: filepath.Join(env.dir, "synward"), binary: binary}
}

func (s *synward) name() string { return "synward" }
func (s *synward) syncs() string {
	return "one log for all messages, fdatasync shared by those that wait"
}
func (s *synward) address(plain bool) string {
	if plain {
		return s.plain
	}
	return s.addr
}
func (s *synward) pid() int { return s.cmd.Process.Pid }

const nobody = 65534

func (s *synward) start(ctx context.Context) error {
	spool := filepath.Join(s.dir, "spool")
	if err := os.MkdirAll(spool, 0o755); err != nil {
		return err
	}
	if err := os.Chown(spool, nobody, nobody); err != nil {
		return err
	}
	sock := filepath.Join(s.dir, "relay.sock")
	admin, err := net.Listen("unix", sock)
	if err != nil {
		return err
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	bare, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.addr, s.plain = front.Addr().String(), bare.Addr().String()
	if s.log, err = os.Create(filepath.Join(s.dir, "log")); err != nil {
		return err
	}
	s.cmd = exec.Command(s.binary)
	for _, l := range []interface{ File() (*os.File, error) }{admin.(*net.UnixListener), front.(*net.TCPListener), bare.(*net.TCPListener)} {
		f, err := l.File()
		if err != nil {
			return err
		}
		defer f.Close()
		s.cmd.ExtraFiles = append(s.cmd.ExtraFiles, f)
	}
	s.cmd.Env = append([]string{"SYNWARD_LISTENERS=admin,465/implicit,25/starttls", "SYNWARD_SPOOL=" + spool}, os.Environ()...)
	s.cmd.Stderr = s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	admin.(*net.UnixListener).SetUnlinkOnClose(false)
	admin.Close()
	front.Close()
	bare.Close()
	s.ended = make(chan error, 1)
	go func() { s.ended <- s.cmd.Wait() }()
	return s.configure(ctx, sock)
}

func (s *synward) configure(ctx context.Context, sock string) error {
	hash, err := account.Hash(password)
	if err != nil {
		return err
	}
	cert, err := os.ReadFile(s.env.certFile)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(s.env.keyFile)
	if err != nil {
		return err
	}
	doc, err := json.Marshal(relay.Settings{
		Hostname: hostname, TLS: relay.TLSSettings{CertPEM: string(cert), KeyPEM: string(key)},
		Accounts:   []account.Account{{Name: login, Hash: hash, Senders: []string{login}, Created: time.Now(), Quota: quotas()}},
		Smarthosts: []relay.Smarthost{{Host: "127.0.0.1", Port: uint16(s.env.sink.port()), TLS: relay.TLSNone}},
		Peers:      []relay.Peer{{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Name: "bench"}},
		Quota:      relay.QuotaConfig{Source: *quotas()},
		Limits:     relay.Limits{Sessions: 20000, SessionsPerSource: 20000},
	})
	if err != nil {
		return err
	}
	c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", sock)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://relay/v1/settings", bytes.NewReader(doc))
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		said, _ := os.ReadFile(s.log.Name())
		return fmt.Errorf("%w: %s", err, said)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		b, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("settings: %s: %s", resp.Status, b)
	}
	return answers(s.addr, s.ended)
}

// quotas are ones that are counted and never met.
func quotas() *quota.Limits {
	const many = 1e9
	return &quota.Limits{MessagesPerHour: many, RecipientsPerHour: many, MessagesPerDay: many, RecipientsPerDay: many}
}

func (s *synward) stop() error { return end(s.cmd.Process, s.ended) }
