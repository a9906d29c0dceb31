package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/relay"
	"github.com/synward/synward/test/lab"
)

func TestDoctorOnOffloads(t *testing.T) {
	for name, c := range map[string]struct {
		on   []string
		err  error
		want []string // grade and a word of the mend
	}{
		"nothing on":  {nil, nil, []string{"ok "}},
		"vlan":        {[]string{"rx-vlan-hw-parse"}, nil, []string{"ok "}},
		"lro":         {[]string{"rx-lro"}, nil, []string{"warn ethtool -K eth0 lro off", "ok "}},
		"gro_hw":      {[]string{"rx-gro-hw"}, nil, []string{"warn ethtool -K eth0 rx-gro-hw off", "ok "}},
		"unsupported": {nil, unix.EOPNOTSUPP, []string{"ok "}},
		"no right":    {nil, errors.New("no"), []string{"warn sudo synward doctor"}},
	} {
		p := &patient{features: func(string) (map[string]bool, error) {
			m := map[string]bool{}
			for _, f := range c.on {
				m[f] = true
			}
			return m, c.err
		}}
		var got []string
		for _, f := range p.offloads("eth0") {
			got = append(got, f.Grade+" "+f.Mend)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// A bond's members, and what is part of something: this kernel need not have
// bonds, so the links are made up.
func TestDoctorOnComposedInterfaces(t *testing.T) {
	link := func(name string, index, master, parent int) netlink.LinkAttrs {
		return netlink.LinkAttrs{Name: name, Index: index, MasterIndex: master, ParentIndex: parent}
	}
	bond := func(mode netlink.BondMode) *netlink.Bond {
		return &netlink.Bond{LinkAttrs: link("bond0", 3, 0, 0), Mode: mode}
	}
	eth0, eth1 := &netlink.Device{LinkAttrs: link("eth0", 1, 3, 0)}, &netlink.Device{LinkAttrs: link("eth1", 2, 3, 0)}
	vlan := &netlink.Vlan{LinkAttrs: link("eth2.7", 5, 0, 4)}
	eth2 := &netlink.Device{LinkAttrs: link("eth2", 4, 0, 0)}
	bridge := &netlink.Bridge{LinkAttrs: link("br0", 6, 0, 0)}
	port := &netlink.Device{LinkAttrs: link("eth3", 7, 6, 0)}
	all := []netlink.Link{eth0, eth1, bond(netlink.BOND_MODE_802_3AD), eth2, vlan, bridge, port}
	for name, c := range map[string]struct {
		l     netlink.Link
		named []string
		want  string // grade and a part of the text or mend
	}{
		"bond":             {bond(netlink.BOND_MODE_802_3AD), []string{"bond0"}, "ok bond of eth0, eth1, mode 802.3ad"},
		"bond without XDP": {bond(netlink.BOND_MODE_BALANCE_ALB), []string{"bond0"}, "warn bond of eth0, eth1, mode balance-alb"},
		"one member":       {eth0, []string{"eth0"}, "fail is part of the bond bond0, and what comes in by eth1"},
		"all members":      {eth0, []string{"eth0", "eth1"}, "ok part of the bond bond0, all"},
		"vlan":             {vlan, []string{"eth2.7"}, "warn is a VLAN of eth2"},
		"bridge port":      {port, []string{"eth3"}, "warn is part of br0 (bridge)"},
		"plain":            {eth2, []string{"eth2"}, ""},
	} {
		got := ""
		for _, f := range composed(c.l, all, c.named) {
			got += f.Grade + " " + f.Text
		}
		if !strings.HasPrefix(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// On a host of its own: real interfaces, a stranger's XDP program, a port that
// is taken.
func TestDoctorOnAHost(t *testing.T) {
	edge, far := lab.NewHost(t, "edge"), lab.NewHost(t, "far")
	lab.Connect(edge, "eth0", far, "eth0")
	p := &patient{root: "", file: file{Config: agent.DefaultConfig(), Relay: relay.DefaultConfig()}}
	p.file.Filter.Interfaces = []string{"eth*"}
	p.file.Filter.PinDir = filepath.Join(lab.BPFFS(t), "synward")
	p.file.Relay.Enabled = true
	p.file.Relay.Listen = []relay.ListenConfig{{Port: 25, TLS: relay.TLSStartTLS}, {Port: 587, TLS: relay.TLSStartTLS}}
	look := func() (findings []finding) {
		edge.Do(func() error {
			findings = append(examineInterfaces(context.Background(), p), examinePorts(context.Background(), p)...)
			return nil
		})
		return findings
	}
	for check, want := range map[string]string{"eth0": gradeOK, "eth0 offloads": gradeOK, "eth0 xdp": gradeOK, "port 25": gradeOK, "port 587": gradeOK} {
		if got := gradeOf(look(), check); got != want {
			t.Errorf("%s: %s, want %s: %+v", check, got, want, look())
		}
	}
	edge.Do(func() error {
		l, err := net.Listen("tcp", ":25")
		if err == nil {
			t.Cleanup(func() { l.Close() })
			err = occupy(t, "eth0")
		}
		return err
	})
	for check, want := range map[string]string{"eth0 xdp": gradeFail, "port 25": gradeFail, "port 587": gradeOK} {
		if got := gradeOf(look(), check); got != want {
			t.Errorf("%s: %s, want %s: %+v", check, got, want, look())
		}
	}
}

// occupy puts a program that passes everything on an interface.
func occupy(t *testing.T, name string) error {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}})
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetXdpFd(l, prog.FD())
}

func TestDoctorOnTheSpool(t *testing.T) {
	if got := spool(filepath.Join(t.TempDir(), "not", "there", "yet")); got.Grade == gradeFail {
		t.Errorf("a spool that the agent makes: %+v", got)
	}
	if got := spool("/proc/self"); got.Grade != gradeWarn || got.Mend == "" {
		t.Errorf("a spool without room: %+v", got)
	}
}
