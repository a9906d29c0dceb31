package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// featuresOf are an interface's offloads by their names in the kernel, as
// ethtool -k shows them.
func featuresOf(name string) (map[string]bool, error) {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return nil, fmt.Errorf("open ethtool: %w", err)
	}
	defer e.Close()
	f, err := e.Features(name)
	if err != nil {
		return nil, fmt.Errorf("read the offloads of %s: %w", name, err)
	}
	return f, nil
}

// offloads looks at what a card does to packets before XDP sees them.
func (p *patient) offloads(name string) []finding {
	features := featuresOf
	if p.features != nil {
		features = p.features
	}
	check := name + " offloads"
	f, err := features(name)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return []finding{ok(check, "none that can be set")}
	} else if err != nil {
		return []finding{warn(check, "sudo synward doctor", "%v", err)}
	}
	var out []finding
	for _, o := range []struct{ feature, flag, what string }{
		{"rx-lro", "lro", "LRO"}, {"rx-gro-hw", "rx-gro-hw", "GRO_HW"},
	} {
		if f[o.feature] {
			out = append(out, warn(check, fmt.Sprintf("ethtool -K %s %s off", name, o.flag),
				"%s is on: the card joins packets before the filter sees them, and many drivers refuse native XDP then", o.what))
		}
	}
	vlan := "off: the filter reads them in the packet"
	if f["rx-vlan-hw-parse"] {
		vlan = "on: the card takes them off; the filter judges the packets of every VLAN alike"
	}
	return append(out, ok(check, "VLAN tags %s", vlan))
}

// bondModes are those in which a bond takes native XDP (bond_xdp_check in the
// kernel's bonding driver, from 5.15 on).
var bondModes = []netlink.BondMode{
	netlink.BOND_MODE_BALANCE_RR, netlink.BOND_MODE_ACTIVE_BACKUP, netlink.BOND_MODE_BALANCE_XOR, netlink.BOND_MODE_802_3AD,
}

// composed looks at what an interface is made of or part of: packets that come
// another way than by the interfaces named are not seen. all are the host's.
func composed(l netlink.Link, all []netlink.Link, named []string) []finding {
	a := l.Attrs()
	var out []finding
	switch t := l.(type) {
	case *netlink.Bond:
		var members []string
		for _, m := range all {
			if m.Attrs().MasterIndex == a.Index {
				members = append(members, m.Attrs().Name)
			}
		}
		text := fmt.Sprintf("bond of %s, mode %s", dash(strings.Join(members, ", ")), t.Mode)
		if slices.Contains(bondModes, t.Mode) {
			out = append(out, ok(a.Name+" bond", "%s", text))
		} else {
			out = append(out, warn(a.Name+" bond", "use mode 802.3ad, active-backup, balance-rr or balance-xor", "%s: there is no native XDP in it, the filter costs more per packet", text))
		}
	case *netlink.Vlan:
		i := slices.IndexFunc(all, func(m netlink.Link) bool { return m.Attrs().Index == a.ParentIndex })
		if i >= 0 {
			parent := all[i].Attrs().Name
			out = append(out, warn(a.Name, "name "+parent+" in [filter] interfaces instead", "is a VLAN of %s: there is no native XDP on it; on %s the filter judges it too", parent, parent))
		}
	}
	return append(out, memberOf(a, all, named)...)
}

// memberOf looks at an interface that is part of another.
func memberOf(a *netlink.LinkAttrs, all []netlink.Link, named []string) []finding {
	i := slices.IndexFunc(all, func(m netlink.Link) bool { return a.MasterIndex != 0 && m.Attrs().Index == a.MasterIndex })
	if i < 0 {
		return nil
	}
	master := all[i]
	var open []string // ways in that the filter is not on
	for _, m := range all {
		if m.Attrs().MasterIndex == a.MasterIndex && !slices.Contains(named, m.Attrs().Name) {
			open = append(open, m.Attrs().Name)
		}
	}
	check, mend := a.Name, "name "+master.Attrs().Name+" in [filter] interfaces instead"
	switch {
	case master.Type() == "bond" && len(open) > 0:
		return []finding{fail(check, mend, "is part of the bond %s, and what comes in by %s is not filtered", master.Attrs().Name, strings.Join(open, ", "))}
	case master.Type() == "bond":
		return []finding{ok(check, "part of the bond %s, all of which is filtered", master.Attrs().Name)}
	}
	return []finding{warn(check, mend, "is part of %s (%s)", master.Attrs().Name, master.Type())}
}
