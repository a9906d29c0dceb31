package loader

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

// Below Linux 6.6 egress is watched through clsact, beside what others have
// there: it is replaced in place, found again, and leaves nothing but the qdisc.
func TestClsact(t *testing.T) {
	edge := lab.NewHost(t, "edge")
	lab.Connect(edge, "eth0", lab.NewHost(t, "peer"), "eth0")
	dir := filepath.Join(lab.BPFFS(t), "synward")
	f, err := Open(Options{PinDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Sync(rule.Policy{
		Ports: []rule.Port{{Number: 25, Default: rule.Drop, Forward: true}}, IPv6Prefix: 64,
		Entries: slices.Values([]rule.Entry{}), Rules: slices.Values([]rule.Rule{}),
	}); err != nil {
		t.Fatal(err)
	}
	edge.Do(func() error {
		index, err := linkIndex("eth0")
		if err != nil {
			return err
		}
		for range 2 { // the second is an upgrade
			if _, err := f.watchClsact(index, f.egressPin(index)); err != nil {
				return err
			}
		}
		if err := addForeign(f, index); err != nil {
			return err
		}
		if how := egressOf(f.egressPin(index), index); how != egressClsact {
			t.Errorf("egress is watched through %q, want clsact", how)
		}
		rules, err := clsactRules(index)
		if len(rules) != 2 {
			t.Errorf("%d filters under clsact, want ours and the foreign one", len(rules))
		}
		return err
	})
	f.Close()
	edge.Do(func() error {
		index, err := linkIndex("eth0")
		if err != nil {
			return err
		}
		if _, err := Unload(dir); err != nil {
			return err
		}
		rules, err := clsactRules(index)
		if len(rules) != 1 || rules[0].Attrs().Handle == clsactHandle {
			t.Errorf("after unload: %v; want the foreign filter alone", rules)
		}
		return err
	})
}

// An upgrade puts the new egress program in the old one's place: a TCX link's at
// once, clsact's when the interface is attached.
func TestUpgradeOfEgress(t *testing.T) {
	edge := lab.NewHost(t, "edge")
	lab.Connect(edge, "eth0", lab.NewHost(t, "peer"), "eth0")
	dir := filepath.Join(lab.BPFFS(t), "synward")
	old := openOlder(t, dir)
	pol := testPolicy("192.0.2.2/32")
	pol.Ports[0].Forward = true
	if _, err := old.Sync(pol); err != nil {
		t.Fatal(err)
	}
	var at Attachment
	edge.Do(func() (err error) { at, err = old.Attach("eth0", Native); return err })
	was, _ := egressProgram(t, old.egressPin(at.Index))
	old.Close()
	f, err := Open(Options{PinDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if now, linked := egressProgram(t, f.egressPin(at.Index)); linked && now == was {
		t.Error("the old egress program is still linked")
	}
	edge.Do(func() (err error) { at, err = f.Attach("eth0", Native); return err })
	if now, _ := egressProgram(t, f.egressPin(at.Index)); now == was || at.Egress == "" {
		t.Errorf("after the upgrade program %d watches by %q, before it %d", now, at.Egress, was)
	}
}

// egressProgram is the program behind a pin, and whether that is a link.
func egressProgram(t *testing.T, pin string) (id ebpf.ProgramID, linked bool) {
	t.Helper()
	if l, err := link.LoadPinnedLink(pin, nil); err == nil {
		defer l.Close()
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		return info.Program, true
	}
	id, _ = pinnedInfo(t, pin).ID()
	return id, false
}

// addForeign puts a filter of somebody else's beside ours.
func addForeign(f *Filter, index int) error {
	rule := clsactFilter(index)
	rule.Handle, rule.Name, rule.Fd = 1, "foreign", f.ledger.Egress.FD()
	return netlink.FilterAdd(rule)
}

func clsactRules(index int) ([]netlink.Filter, error) {
	dev := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
	return netlink.FilterList(dev, netlink.HANDLE_MIN_EGRESS)
}

func linkIndex(name string) (int, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}
