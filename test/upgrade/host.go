package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/synward/synward/test/pages"
)

// followPages runs the commands of the operator's pages that want a host with the
// package and systemd.
func (s *story) followPages(m *machine, folder, newest string) error {
	files, err := filepath.Glob(filepath.Join(folder, "*.md"))
	if err != nil || len(files) < 10 {
		return fmt.Errorf("%s has %d pages: %v", folder, len(files), err)
	}
	m.copy(newest, "root", filepath.Base(newest))
	m.run("", "useradd", "alice")
	ran, err := m.follow(files...)
	m.run("", "userdel", "alice")
	s.step("%d commands of the operator's pages", ran)
	if err == nil && ran < 5 {
		err = fmt.Errorf("%s has only %d commands for a host", folder, ran)
	}
	return err
}

// follow runs what the pages have for a host, in their order. What installs a
// .deb is for a host that is Debian's.
func (m *machine) follow(files ...string) (ran int, err error) {
	blocks, err := pages.Commands(pages.Host, files...)
	if err != nil {
		return 0, err
	}
	for _, b := range blocks {
		for _, c := range b.Commands {
			if m.rpm && strings.HasPrefix(c, "apt ") {
				continue
			}
			if out, err := m.try("", "sh", "-c", c); err != nil {
				return ran, fmt.Errorf("%s: %s: %w\n%s\n%s", b.Where(), c, err, out, m.log())
			}
			ran++
		}
	}
	return ran, nil
}

// keepPrograms puts the package's programs where a build would have left them.
func (m *machine) keepPrograms() {
	for _, name := range []string{"synward", "synward-relay"} {
		m.copy(filepath.Join(m.root, "usr/bin", name), "root/build", name)
	}
}

// followReadme installs by hand as the README says, on a host from which the
// package is gone, and wants the agent and its relay to run.
func (s *story) followReadme(m *machine, readme string) error {
	m.run("", "userdel", "synward-relay")
	m.run("", "groupdel", "synward")
	m.run("", "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mail.example.net",
		"-addext", "subjectAltName=DNS:mail.example.net", "-out", "/etc/ssl/mail.pem", "-keyout", "/etc/ssl/private/mail.key")
	blocks, err := pages.Blocks(readme)
	if err != nil {
		return err
	}
	for _, b := range blocks {
		switch b.Kind {
		case "toml":
			m.write("/etc/synward/synward.toml", b.Text)
			m.write("/etc/synward/smarthost.password", "a password\n")
		case "ini":
			m.write("/etc/systemd/system/synward.service", b.Text)
		}
	}
	for name, text := range map[string]string{"sudo": `exec "$@"`, "make": "exit 0"} { // it is built: keepPrograms
		m.write("/usr/local/bin/"+name, "#!/bin/sh\n"+text+"\n")
		m.run("", "chmod", "0755", "/usr/local/bin/"+name)
	}
	ran, err := m.follow(readme)
	s.step("%d commands of the README", ran)
	if err != nil {
		return err
	}
	if out := m.run("", "synward", "status"); !strings.Contains(out, "observing") || !strings.Contains(out, "relay      running") {
		return fmt.Errorf("after the README's commands status says:\n%s\n%s", out, m.log())
	}
	m.run("", "systemctl", "disable", "--now", "synward")
	m.run("", "synward", "unload")
	m.run("", "rm", "-r", "/etc/synward", "/var/lib/synward", "/var/spool/synward", "/etc/systemd/system/synward.service",
		"/usr/local/sbin/synward", "/usr/local/sbin/synward-relay") // the next package is tried in this root
	return nil
}

// copy puts a file of this host into a folder of the machine's.
func (m *machine) copy(from, dir, name string) {
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Join(m.root, dir), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(m.root, dir, name), b, 0o755)
	}
	if err != nil {
		m.s.Fatalf("copy %s: %v", from, err)
	}
}
