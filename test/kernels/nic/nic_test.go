// Package nic tries the filter on the NICs of a host: by default on a veth
// pair, in a virtual machine (test/kernels) on the cards that it was given.
package nic

import (
	"errors"
	"flag"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

var (
	nics = flag.String("nics", "", "the edge's interface and its neighbour's, on one wire; empty: a veth pair")
	want = flag.String("want", "native", "the mode that `auto` has to end in")
)

// wire gives each host one end; returned are their names.
func wire(t *testing.T, edge, peer *lab.Host) (string, string) {
	t.Helper()
	ours, theirs, given := strings.Cut(*nics, ",")
	if !given {
		lab.Connect(edge, "eth0", peer, "eth0")
		return "eth0", "eth0"
	}
	for name, h := range map[string]*lab.Host{ours: edge, theirs: peer} {
		if err := take(h, name); err != nil {
			t.Fatalf("give %s to %s: %v", name, h.Name, err)
		}
	}
	return ours, theirs
}

// take moves an interface of this namespace to a host. It comes back by itself
// when the host's namespace goes.
func take(h *lab.Host, name string) error {
	ns, err := netns.GetFromName(h.Name)
	if err != nil {
		return err
	}
	defer ns.Close()
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetNsFd(l, int(ns)); err != nil {
		return err
	}
	return h.Try(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
}

// dial connects to the edge's port 25 and leaves the connection open.
func dial(t *testing.T, from *lab.Host, src string) error {
	t.Helper()
	c, err := from.Dial(src, "192.0.2.1:25", 4*time.Second)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return err
}

func silent(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// policy lets 192.0.2.2 have three connections, and nobody else any.
func policy(reset bool) rule.Policy {
	return rule.Policy{
		Ports: []rule.Port{{Number: 25, Default: rule.Drop, Reset: reset}}, IPv6Prefix: 64,
		Entries: slices.Values([]rule.Entry{{ID: rule.FirstID, Verdict: rule.Pass, Limits: rule.Limits{Conns: 3}}}),
		Rules: slices.Values([]rule.Rule{{
			Prefix: netip.MustParsePrefix("192.0.2.2/32"), Steps: []rule.Step{{Ports: [8]uint64{rule.FirstID}}},
		}}),
	}
}

// Left to itself the filter takes the best mode that the NIC has, and does in
// it all that it does: dropping, counting, answering.
func TestFilterOnThisNIC(t *testing.T) {
	edge, peer := lab.NewHost(t, "edge"), lab.NewHost(t, "peer")
	ours, theirs := wire(t, edge, peer)
	edge.Address(ours, "192.0.2.1/24")
	peer.Address(theirs, "192.0.2.2/24", "192.0.2.3/24")
	edge.ListenRaw("192.0.2.1:25")
	if err := dial(t, peer, "192.0.2.3"); err != nil {
		t.Fatalf("without the filter the wire does not carry: %v", err)
	}
	f, err := loader.Open(loader.Options{PinDir: filepath.Join(lab.BPFFS(t), "synward")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	sync := func(p rule.Policy) {
		if _, err := f.Sync(p); err != nil {
			t.Fatal(err)
		}
	}
	sync(policy(false))
	edge.Do(func() error {
		a, err := f.Attach(ours, loader.Auto)
		if a.Mode != loader.Mode(*want) || (a.Warning != "") != (a.Mode == loader.Generic) {
			t.Errorf("attached as %+v, want %s", a, *want)
		}
		return err
	})
	if err := dial(t, peer, "192.0.2.3"); !silent(err) {
		t.Errorf("a stranger: %v, want silence", err)
	}
	for i := range 4 {
		if err := dial(t, peer, "192.0.2.2"); (err == nil) != (i < 3) {
			t.Errorf("connection %d of the source whose cap is 3: %v", i+1, err)
		}
	}
	if !strings.Contains(*nics, ",") {
		peer.PassAll(theirs) // a veth takes a RST sent by XDP only so
	}
	sync(policy(true))
	if err := dial(t, peer, "192.0.2.3"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a stranger, refused by RST: %v", err)
	}
}
