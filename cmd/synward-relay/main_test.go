package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	netsmtp "net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/account"
)

// build compiles the real binary into a folder that anybody may enter.
func build(t *testing.T) (dir, bin string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "synward-relay")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	bin = filepath.Join(dir, "synward-relay")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir, bin
}

// process is the relay, running as nobody with inherited sockets.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *os.File
	http *http.Client
	smtp string // address of the STARTTLS listener
}

func startRelay(t *testing.T, dir, bin string) *process {
	t.Helper()
	return startWith(t, dir, bin, "")
}

// startWith starts it with more listeners than the two that each has.
func startWith(t *testing.T, dir, bin, spec string, more ...net.Listener) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	p := &process{t: t, log: log}
	sock := filepath.Join(dir, "relay.sock")
	spool := filepath.Join(dir, "spool")
	admin, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.smtp = front.Addr().String()
	p.cmd = exec.Command(bin)
	for _, l := range append([]net.Listener{admin, front}, more...) {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, f)
	}
	p.cmd.Env = []string{"SYNWARD_LISTENERS=admin,587/starttls" + spec, "SYNWARD_SPOOL=" + spool}
	p.cmd.Stderr = log
	if err := os.MkdirAll(spool, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if err := os.Chown(spool, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	admin.(*net.UnixListener).SetUnlinkOnClose(false)
	admin.Close()
	front.Close()
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	p.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", sock)
	}}}
	return p
}

// said is the process's log so far.
func (p *process) said() string {
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (p *process) ask(method, path string, doc any) (int, string) {
	p.t.Helper()
	var body bytes.Buffer
	if doc != nil {
		if err := json.NewEncoder(&body).Encode(doc); err != nil {
			p.t.Fatal(err)
		}
	}
	req, err := http.NewRequest(method, "http://relay"+path, &body)
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		p.t.Fatalf("%s %s: %v\n%s", method, path, err, p.said())
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func TestBinaryLinksNoKernelCode(t *testing.T) {
	_, bin := build(t)
	info, err := buildinfo.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Deps) == 0 {
		t.Fatal("the binary names no dependencies: this test sees nothing")
	}
	for _, d := range info.Deps {
		for _, bad := range []string{"cilium/ebpf", "vishvananda/", "mdlayher/netlink", "etcd", "bbolt"} {
			if strings.Contains(d.Path, bad) {
				t.Errorf("the relay's binary links %s", d.Path)
			}
		}
	}
	// Packages of this module are no dependencies in the build info: their
	// names are in the symbol table.
	syms, err := exec.Command("go", "tool", "nm", bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"synward/synward/bpf", "synward/synward/loader", "synward/synward/agent"} {
		if bytes.Contains(syms, []byte(bad)) {
			t.Errorf("the relay's binary holds %s", bad)
		}
	}
	if !bytes.Contains(syms, []byte("synward/synward/relay.")) {
		t.Error("the symbol table does not even name the relay")
	}
}

func TestByHand(t *testing.T) {
	var out bytes.Buffer
	if got := run(nil, func(string) string { return "" }, &out); got != 2 || !strings.Contains(out.String(), "synward agent") {
		t.Errorf("exit status %d, %q", got, out.String())
	}
	for _, spec := range []string{"587/starttls", "admin,587", "admin,0/starttls", "admin,587/tls", "admin,x/implicit", "admin"} {
		env := map[string]string{"SYNWARD_LISTENERS": spec, "SYNWARD_SPOOL": "/nonexistent"}
		out.Reset()
		if _, err := inherit(spec, 900); err == nil {
			t.Errorf("SYNWARD_LISTENERS=%s passed with no descriptors behind it", env["SYNWARD_LISTENERS"])
		}
	}
}

// sink is a next hop that keeps what it gets.
func sink(t *testing.T) (port uint16, got chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got = make(chan string, 10)
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return sinkSession{got}, nil }))
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return uint16(l.Addr().(*net.TCPAddr).Port), got
}

type sinkSession struct{ got chan string }

func (sinkSession) Reset()                               {}
func (sinkSession) Logout() error                        { return nil }
func (sinkSession) Mail(string, *smtp.MailOptions) error { return nil }
func (sinkSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s sinkSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	s.got <- string(b)
	return err
}

// TestRelayEndToEnd is one mail's way through the real process.
func TestRelayEndToEnd(t *testing.T) {
	dir, bin := build(t)
	p := startRelay(t, dir, bin)
	port, got := sink(t)
	hash, err := account.Hash("secret")
	if err != nil {
		t.Fatal(err)
	}
	bad := relay.Settings{Hostname: "not a name"}
	if code, text := p.ask("PUT", "/v1/settings", bad); code != 400 || strings.Count(text, "\n") != 1 || !strings.Contains(text, "hostname") {
		t.Errorf("bad settings: %d %q", code, text)
	}
	if _, text := p.ask("GET", "/v1/status", nil); !strings.Contains(text, `"ready":false`) {
		t.Errorf("status before settings: %s", text)
	}
	set := relay.Settings{
		Hostname: "relay.example", Accounts: []account.Account{{Name: "alice", Hash: hash}},
		Smarthosts: []relay.Smarthost{{Host: "127.0.0.1", Port: port, TLS: relay.TLSNone}},
	}
	if code, text := p.ask("PUT", "/v1/settings", set); code != 200 {
		t.Fatalf("settings: %d %s\n%s", code, text, p.said())
	}
	events := p.follow()

	if err := submit(p.smtp, "alice", "wrong"); err == nil {
		t.Error("a wrong password passes")
	}
	if err := submit(p.smtp, "alice", "secret"); err != nil {
		t.Fatalf("submit: %v\n%s", err, p.said())
	}
	select {
	case m := <-got:
		if !strings.Contains(m, "\r\n\r\nhello\r\n") || !strings.HasPrefix(m, "Received: from ") || !strings.Contains(m, "with UTF8SMTPSA id ") {
			t.Errorf("the next hop got %q", m)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("nothing arrives\n%s", p.said())
	}
	for _, kind := range []string{"auth-failure", "accepted", "delivered"} {
		if e := events(); e.Kind != kind {
			t.Errorf("event is %+v, want %s", e, kind)
		}
	}
	code, text := p.ask("GET", "/v1/status", nil)
	for _, want := range []string{`"ready":true`, `"accepted":1`, `"auth_failures":1`, `"self_signed":true`, `"no_new_privs":true`, set.Hash(), `"listeners":["587/starttls"]`} {
		if !strings.Contains(text, want) {
			t.Errorf("status %d has no %s: %s", code, want, text)
		}
	}
	if code, text := p.ask("POST", "/v1/queue/nosuch/retry", nil); code != 404 {
		t.Errorf("retry of nothing: %d %s", code, text)
	}
	if code, text := p.ask("GET", "/v1/queue", nil); code != 200 || strings.TrimSpace(text) != "[]" {
		t.Errorf("queue: %d %q", code, text)
	}
	p.terminate()
}

// follow reads the events one by one.
func (p *process) follow() func() relay.Event {
	p.t.Helper()
	resp, err := p.http.Get("http://relay/v1/events?follow=1")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	return func() (e relay.Event) {
		p.t.Helper()
		if !lines.Scan() {
			p.t.Fatalf("no more events: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			p.t.Fatal(err)
		}
		return e
	}
}

// terminate asks the process to end, as the agent does; it must obey with 0.
func (p *process) terminate() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			p.t.Errorf("exit: %v\n%s", err, p.said())
		}
	case <-time.After(30 * time.Second):
		p.t.Fatal("it does not end")
	}
}

func submit(addr, user, password string) error {
	c, err := netsmtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := errors.Join(c.Hello("client.example"), c.StartTLS(&tls.Config{InsecureSkipVerify: true})); err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(addr)
	if err := c.Auth(netsmtp.PlainAuth("", user, password, host)); err != nil {
		return err
	}
	if err := errors.Join(c.Mail("a@example.org"), c.Rcpt("b@example.com")); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(w, "Subject: x\r\n\r\nhello\r\n"); err != nil {
		return err
	}
	return errors.Join(w.Close(), c.Quit())
}

// TestRootIsRefused: the relay must not run as root, whoever starts it.
func TestRootIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: nothing to refuse")
		return
	}
	dir, bin := build(t)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin)
	cmd.ExtraFiles, cmd.Env = []*os.File{f}, []string{"SYNWARD_LISTENERS=admin", "SYNWARD_SPOOL=" + dir}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !bytes.Contains(out, []byte("running as root")) {
		t.Errorf("%v: %s", err, out)
	}
}
