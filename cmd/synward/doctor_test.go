package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/loader"
	"github.com/synward/synward/relay"
)

// fakeRoot is a host's /proc and /sys with the given files.
func fakeRoot(t *testing.T, files map[string]string) *patient {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		full := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &patient{root: root}
}

func gradeOf(findings []finding, check string) string {
	for _, f := range findings {
		if f.Check == check {
			return f.Grade
		}
	}
	return "none"
}

func TestDoctorOnKernels(t *testing.T) {
	good := map[string]string{
		"proc/sys/kernel/osrelease": "6.1.0-40-amd64", "sys/kernel/btf/vmlinux": "x", "proc/sys/net/core/bpf_jit_enable": "1",
		"proc/sys/net/ipv4/tcp_syncookies": "1", "proc/sys/net/ipv4/tcp_fastopen": "1", "proc/self/mountinfo": "30 22 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
	}
	for _, c := range []struct{ file, text, check, want string }{
		{"", "", "kernel", gradeOK}, {"", "", "btf", gradeOK}, {"", "", "jit", gradeOK}, {"", "", "syncookies", gradeOK}, {"", "", "cgroup2", gradeOK},
		{"proc/sys/kernel/osrelease", "5.10.0-30-amd64", "kernel", gradeFail},
		{"proc/sys/kernel/osrelease", "5.15.0", "kernel", gradeOK},
		{"sys/kernel/btf/vmlinux", "-", "btf", gradeFail},
		{"proc/sys/net/core/bpf_jit_enable", "0", "jit", gradeWarn},
		{"proc/sys/net/ipv4/tcp_syncookies", "0", "syncookies", gradeWarn},
		{"proc/sys/net/ipv4/tcp_fastopen", "3", "fast open", gradeWarn},
		{"proc/self/mountinfo", "", "cgroup2", gradeWarn},
	} {
		files := map[string]string{}
		for k, v := range good {
			if k != c.file {
				files[k] = v
			} else if c.text != "-" {
				files[k] = c.text
			}
		}
		if got := gradeOf(examineKernel(context.Background(), fakeRoot(t, files)), c.check); got != c.want {
			t.Errorf("%s with %s %q: %s, want %s", c.check, c.file, c.text, got, c.want)
		}
	}
}

func TestDoctorOnCertificates(t *testing.T) {
	now := time.Now()
	write := func(name string, end time.Time) string {
		t.Helper()
		cert := makeCert(t, name, end)
		path := filepath.Join(t.TempDir(), "c.pem")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{"", gradeWarn}, {"/nowhere", gradeFail}, {junk, gradeFail},
		{write("mail.example.net", now.Add(90*24*time.Hour)), gradeOK},
		{write("mail.example.net", now.Add(3*24*time.Hour)), gradeWarn},
		{write("mail.example.net", now.Add(-time.Hour)), gradeFail},
		{write("other.example.net", now.Add(90*24*time.Hour)), gradeFail},
	} {
		got := certificate(relay.Config{Hostname: "mail.example.net", TLS: relay.TLSFiles{Cert: c.path}}, now)
		if got.Grade != c.want {
			t.Errorf("%s: %+v, want %s", c.path, got, c.want)
		}
		if got.Grade != gradeOK && got.Mend == "" {
			t.Errorf("%s: nothing to do about it: %+v", c.path, got)
		}
	}
}

// An open relay is recognised, and one that refuses.
func TestDoctorOnOpenRelays(t *testing.T) {
	for answer, open := range map[string]bool{"250 2.1.5 ok": true, "550 5.7.1 relaying denied": false} {
		reply, err := tryRelay(context.Background(), serveSMTP(t, answer), false)
		if err != nil || (reply == "") != open {
			t.Errorf("RCPT answered with %s: reply %q, %v", answer, reply, err)
		}
	}
}

// serveSMTP answers one session; RCPT with the given reply.
func serveSMTP(t *testing.T, rcpt string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprint(c, "220 edge.example\r\n")
		lines := bufio.NewScanner(c)
		for lines.Scan() {
			reply := "250 ok"
			if strings.HasPrefix(lines.Text(), "RCPT") {
				reply = rcpt
			}
			fmt.Fprintf(c, "%s\r\n", reply)
		}
	}()
	return l.Addr().String()
}

// makeCert is the DER of a self-signed certificate.
func makeCert(t *testing.T, name string, end time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: end.AddDate(-1, 0, 0), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestDoctorOnEgress(t *testing.T) {
	for server, want := range map[string]map[string]string{
		"elsewhere": {"eth0 egress": gradeOK, "eth1 egress": gradeWarn, "eth2 egress": "none"},
		"local":     {"eth0 egress": "none", "eth1 egress": "none", "eth2 egress": "none"},
	} {
		findings := examineEgress(t.Context(), &patient{status: &control.Status{Filter: control.FilterStatus{
			Ports:      []control.Port{{Port: 25, Server: server}},
			Interfaces: []control.Interface{{Name: "eth0", Mode: "native", Egress: "tcx"}, {Name: "eth1", Mode: "native"}, {Name: "eth2"}},
		}}})
		for check, grade := range want {
			if got := gradeOf(findings, check); got != grade {
				t.Errorf("server %s, %s: %s, want %s", server, check, got, grade)
			}
		}
	}
}

func TestDoctorOnTheInterfacesOwner(t *testing.T) {
	taken := &netlink.LinkAttrs{Name: "eth0", Index: 4711, Xdp: &netlink.LinkXdp{Attached: true, ProgId: 1 << 30}}
	free := &netlink.LinkAttrs{Name: "eth0", Index: 4711}
	on := func(mode loader.Mode) *patient {
		st := control.Status{}
		st.Filter.Interfaces = []control.Interface{{Name: "eth0", Mode: mode}}
		return &patient{status: &st}
	}
	var tcx file
	tcx.Filter.Attach = loader.TCX
	for name, c := range map[string]struct {
		p           *patient
		link        *netlink.LinkAttrs
		grade, says string
	}{
		"native":                  {on(loader.Native), taken, gradeOK, "native"},
		"generic":                 {on(loader.Generic), taken, gradeWarn, "generic"},
		"tcx alone":               {on(loader.TCX), free, gradeOK, "TCX"},
		"tcx behind somebody":     {on(loader.TCX), taken, gradeOK, "bpftool prog show id 1073741824) of somebody else"},
		"bad owner":               {on(""), taken, gradeFail, "bpftool prog show id 1073741824) of somebody else"},
		"no agent, free":          {&patient{}, free, gradeOK, "free"},
		"no agent, bad owner":     {&patient{}, taken, gradeFail, "somebody else"},
		"no agent, tcx is wanted": {&patient{file: tcx}, taken, gradeOK, "TCX"},
	} {
		f := c.p.examineOwner(c.link)
		if f.Grade != c.grade || !strings.Contains(f.Text, c.says) {
			t.Errorf("%s: %+v, want %s with %q", name, f, c.grade, c.says)
		}
		if f.Grade == gradeFail && !strings.Contains(f.Mend, "tcx") {
			t.Errorf("%s: mend by %q", name, f.Mend)
		}
	}
}
