package loader

import (
	"path/filepath"
	"slices"
	"testing"

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
