package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/fdstore"
	"github.com/synward/synward/agent/supervise"
	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/account"
)

// relayBinary is the relay's own program.
const relayBinary = "synward-relay"

// relayGrace is how long sessions may go on when the relay is told to stop.
const relayGrace = 30 * time.Second

// relayOptions turns the [relay] section into what the agent runs; nil where
// the relay is not enabled. binary is its program, "" = look for it.
func relayOptions(f file, binary string) (*agent.RelayOptions, error) {
	if !f.Relay.Enabled {
		return nil, nil
	}
	// The files that it names are read again at every use; read now, a bad one
	// is told before anything has been touched.
	if _, err := f.Relay.Settings(nil); err != nil {
		return nil, err
	}
	path, err := findRelay(binary)
	if err != nil {
		return nil, err
	}
	o := supervise.Options{
		Command: path, User: f.Relay.User, Dir: f.Relay.Spool, Grace: relayGrace, Stderr: os.Stderr,
		Keeper: fdstore.Open(),
		Socket: filepath.Join(filepath.Dir(f.Control.Socket), "relay.sock"),
	}
	names := []string{"admin"}
	for _, l := range f.Relay.Listen {
		name := fmt.Sprintf("%d/%s", l.Port, l.TLS)
		names = append(names, name)
		o.Listeners = append(o.Listeners, supervise.Listener{Name: name, Address: l.Address, Port: l.Port})
	}
	if f.Relay.ACME.Enabled {
		name, l := f.Relay.ACME.Listener()
		names = append(names, name)
		o.Listeners = append(o.Listeners, supervise.Listener{Name: name, Address: l.Address, Port: l.Port})
	}
	o.Env = []string{
		"SYNWARD_LISTENERS=" + strings.Join(names, ","),
		"SYNWARD_SPOOL=" + f.Relay.Spool,
		f.Log.Environ(),
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
	}
	return &agent.RelayOptions{Supervise: o, Settings: relaySettings(f.Relay)}, nil
}

// relaySettings makes the document that the relay is given.
func relaySettings(c relay.Config) func(agent.Grants) ([]byte, error) {
	return func(g agent.Grants) ([]byte, error) {
		accounts := make([]account.Account, 0, len(g.Accounts))
		for _, d := range g.Accounts {
			var a account.Account
			if err := json.Unmarshal(d, &a); err != nil {
				return nil, fmt.Errorf("read account: %w", err)
			}
			accounts = append(accounts, a)
		}
		s, err := c.Settings(accounts)
		if err != nil {
			return nil, err
		}
		for _, p := range g.Peers {
			s.Peers = append(s.Peers, relay.Peer{Prefix: p.Prefix, Name: p.Name, Ports: p.Ports, Except: p.Except})
		}
		return json.Marshal(s)
	}
}

// findRelay looks for the relay's program: beside this one, then in PATH.
func findRelay(binary string) (string, error) {
	if binary != "" {
		if _, err := os.Stat(binary); err != nil {
			return "", fmt.Errorf("find the relay's program: %w", err)
		}
		return filepath.Abs(binary)
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), relayBinary)
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath(relayBinary)
	if err != nil {
		return "", fmt.Errorf("find the relay's program: no %s beside synward or in PATH; install it there, or name it with --relay-binary", relayBinary)
	}
	return filepath.Abs(path)
}

// sameACME says whether the listener for challenges is the one that there is.
func sameACME(was, now relay.ACMEConfig) bool {
	_, a := was.Listener()
	_, b := now.Listener()
	return was.Enabled == now.Enabled && (!now.Enabled || a == b)
}
