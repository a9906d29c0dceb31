package interfaces

import (
	"flag"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/test/lab"
)

// kinds are the interfaces that this kernel is known to have.
var kinds = flag.String("kinds", "bridge", "kinds of interface to stack: any of bridge, dummy, ifb, bond, vlan")

// stacks are the ways to stack them, by the kind that each needs.
var stacks = map[string]func(*testing.T){
	"bridge": bridgePort, "dummy": plainDevice("dummy"), "ifb": plainDevice("ifb"), "bond": bonds, "vlan": vlans,
}

func TestStacked(t *testing.T) {
	for kind := range strings.SplitSeq(*kinds, ",") {
		stack, ok := stacks[kind]
		if !ok {
			t.Fatalf("-kinds: %q is none", kind)
		}
		t.Run(kind, stack)
	}
}

// add makes an interface on the host, and sets it up.
func add(h *lab.Host, l netlink.Link) {
	h.Do(func() error {
		if err := netlink.LinkAdd(l); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// enslave gives a host's interface a master, and moves its addresses there.
func enslave(h *lab.Host, port, master string) {
	onLink(h, port, func(l netlink.Link) error {
		m, err := netlink.LinkByName(master)
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetDown(l); err != nil { // as a bond wants
			return err
		}
		if err := netlink.LinkSetMaster(l, m); err != nil {
			return err
		}
		for _, a := range addrs {
			_ = netlink.AddrDel(l, &a)
			if err := netlink.AddrAdd(m, &netlink.Addr{IPNet: a.IPNet}); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(l)
	})
}

// The filter on a bridge's port guards what the bridge itself receives.
func bridgePort(t *testing.T) {
	e := newEdge(t)
	peer := e.connect("eth0", net1)
	add(e.Host, &netlink.Bridge{LinkAttrs: attrs("br0")})
	enslave(e.Host, "eth0", "br0")
	e.Listen(":25")
	e.start(loader.Auto, "eth0")
	e.attached("eth0", loader.Native)
	e.guarded(peer, net1)
}

// plainDevice has no native XDP, and takes the filter in generic mode.
func plainDevice(kind string) func(*testing.T) {
	return func(t *testing.T) {
		e := newEdge(t)
		add(e.Host, &netlink.GenericLink{LinkAttrs: attrs("wan0"), LinkType: kind})
		e.start(loader.Auto, "wan*")
		e.attached("wan0", loader.Generic)
		if w := e.shown("wan0").Warning; !strings.Contains(w, "refused native") {
			t.Errorf("status warns: %q", w)
		}
	}
}

// bond puts two wires of the edge to one neighbour together.
func bond(e *edge) (peer *lab.Host) {
	peer = e.connect("eth0", net1)
	lab.Connect(e.Host, "eth1", peer, "eth1")
	for _, h := range []*lab.Host{e.Host, peer} {
		b := netlink.NewLinkBond(attrs("bond0"))
		b.Mode = netlink.BOND_MODE_BALANCE_RR
		b.Miimon = 100
		add(h, b)
		enslave(h, "eth0", "bond0")
		enslave(h, "eth1", "bond0")
	}
	return peer
}

// The filter on a bond, or on each of the wires in it.
func bonds(t *testing.T) {
	for _, names := range [][]string{{"bond0"}, {"eth*"}} {
		t.Run(names[0], func(t *testing.T) {
			e := newEdge(t)
			peer := bond(e)
			e.Listen(":25")
			e.start(loader.Auto, names...)
			if names[0] == "bond0" {
				e.attached("bond0", loader.Native)
			} else {
				e.attached("eth0", loader.Native)
				e.attached("eth1", loader.Native)
			}
			for range 4 { // by either wire
				e.guarded(peer, net1)
			}
		})
	}
}

// What comes with a tag for an interface on top is filtered below, on the NIC;
// or on top, where the driver has no native mode.
func vlans(t *testing.T) {
	for _, name := range []string{"eth0", "eth0.5"} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t)
			peer := e.connect("eth0", net2)
			for _, h := range []*lab.Host{e.Host, peer} {
				var parent int
				onLink(h, "eth0", func(l netlink.Link) error { parent = l.Attrs().Index; return nil })
				a := attrs("eth0.5")
				a.ParentIndex = parent
				add(h, &netlink.Vlan{LinkAttrs: a, VlanId: 5, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
			}
			e.Address("eth0.5", net1+".1/24")
			peer.Address("eth0.5", net1+".2/24", net1+".3/24")
			e.Listen(":25")
			e.start(loader.Auto, name)
			want := []loader.Mode{loader.Native, loader.Generic}[slices.Index([]string{"eth0", "eth0.5"}, name)]
			e.attached(name, want)
			e.guarded(peer, net1)
			if got := e.reached(peer, net2); got != (name == "eth0.5") {
				t.Errorf("the stranger without a tag comes through: %v", got)
			}
		})
	}
}
