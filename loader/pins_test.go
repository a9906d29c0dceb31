package loader_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

func wantError(t *testing.T, err, sentinel error, words ...string) {
	t.Helper()
	if sentinel != nil && !errors.Is(err, sentinel) {
		t.Errorf("error %v, want one that is %q", err, sentinel)
	}
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q is more than a line", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	t.Run("not on bpffs", func(t *testing.T) {
		_, err := loader.Open(loader.Options{PinDir: filepath.Join(t.TempDir(), "synward")})
		wantError(t, err, nil, "bpf filesystem", "mount -t bpf")
	})
	t.Run("second agent", func(t *testing.T) {
		f := open(t)
		_, err := loader.Open(loader.Options{PinDir: f.Dir()})
		wantError(t, err, loader.ErrBusy, f.Dir())
		_, err = loader.Unload(f.Dir())
		wantError(t, err, loader.ErrBusy)
	})
}

// What this build cannot read it says, and an agent puts its own in the place.
func TestOtherPinsAreFollowed(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		spoil func(dir string) error
		says  string
	}{
		"another layout": {func(dir string) error {
			m, err := ebpf.LoadPinnedMap(filepath.Join(dir, "states"), nil)
			if err != nil {
				return err
			}
			defer m.Close()
			return m.Put(uint32(0), []uint32{99, 0, 0, 0})
		}, "layout 99"},
		"a pin is gone": {func(dir string) error { return os.Remove(filepath.Join(dir, "rules")) }, "map rules"},
	} {
		t.Run(what, func(t *testing.T) {
			f := open(t)
			f.Close()
			if err := c.spoil(filepath.Join(f.Dir(), "filter")); err != nil {
				t.Fatal(err)
			}
			_, err := loader.View(f.Dir())
			wantError(t, err, loader.ErrOtherVersion, c.says, "start this version's agent")
			f, err = loader.Open(loader.Options{PinDir: f.Dir()})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.Sync(manyPrefixes(3)); err != nil {
				t.Fatal(err)
			}
			v, err := loader.View(f.Dir())
			if err != nil {
				t.Fatal(err)
			}
			v.Close()
		})
	}
}

func TestViewNeedsAFilter(t *testing.T) {
	t.Parallel()
	_, err := loader.View(filepath.Join(lab.BPFFS(t), "synward"))
	wantError(t, err, loader.ErrNotLoaded)
}

func TestViewBesideAnAgent(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	v, err := loader.View(e.filter.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	a, err := v.Probe(netip.MustParseAddr("192.0.2.2"), 25)
	if err != nil || a.Verdict != rule.Pass {
		t.Errorf("probe through a view: %+v, %v", a, err)
	}
}

func TestUnloadLeavesNothing(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.Listen("192.0.2.1:25")
	dir := e.filter.Dir()
	e.filter.Close()
	if done, err := loader.Unload(dir); !done || err != nil {
		t.Fatalf("unload: %v, %v", done, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pin directory is still there: %v", err)
	}
	if !reached(t, e.peer, "192.0.2.3", "192.0.2.1:25") {
		t.Error("the stranger is still refused")
	}
	if done, err := loader.Unload(dir); done || err != nil {
		t.Errorf("a second unload: %v, %v; want nothing to do", done, err)
	}
}

func TestAttach(t *testing.T) {
	t.Parallel()
	t.Run("no such interface", func(t *testing.T) {
		_, err := open(t).Attach("nowhere0", loader.Auto)
		wantError(t, err, nil, "nowhere0", "no such interface")
	})
	t.Run("another program has the place", func(t *testing.T) {
		h, f := lab.NewHost(t, "edge"), open(t)
		lab.Connect(h, "eth0", lab.NewHost(t, "peer"), "eth0")
		occupy(t, h, "eth0")
		h.Do(func() error {
			_, err := f.Attach("eth0", loader.Auto)
			wantError(t, err, loader.ErrForeign, "eth0", "squatter")
			return nil
		})
	})
	t.Run("jumbo frames", func(t *testing.T) {
		e := newEdge(t, rule.Limits{})
		e.Listen("192.0.2.1:25")
		for _, h := range []*lab.Host{e.Host, e.peer} {
			setMTU(h, "eth0", 9000)
		}
		e.Do(func() error {
			a, err := e.filter.Attach("eth0", loader.Native)
			if a.Mode != loader.Native {
				t.Errorf("at an MTU of 9000: %+v", a)
			}
			return err
		})
		if !reached(t, e.peer, "192.0.2.2", "192.0.2.1:25") || reached(t, e.peer, "192.0.2.3", "192.0.2.1:25") {
			t.Error("the filter decides otherwise at an MTU of 9000")
		}
	})
	t.Run("driver without native XDP", func(t *testing.T) {
		h, f := lab.NewHost(t, "edge"), open(t)
		h.Do(func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "wan0"
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
				return err
			}
			if _, err := f.Attach("wan0", loader.Native); err == nil {
				t.Error("native mode on a bridge: no error")
			}
			a, err := f.Attach("wan0", loader.Auto)
			if a.Mode != loader.Generic || !strings.Contains(a.Warning, "generic") {
				t.Errorf("auto on a bridge: %+v", a)
			}
			for range 2 { // asked for native after all, it stays where it is
				if a, err := f.Attach("wan0", loader.Native); err == nil || a.Mode != loader.Generic {
					t.Errorf("native on a bridge that it is on: %+v, %v", a, err)
				}
				if l, err := netlink.LinkByName("wan0"); err != nil || l.Attrs().Xdp == nil || !l.Attrs().Xdp.Attached {
					t.Errorf("the filter is off the bridge: %v", err)
				}
			}
			return err
		})
	})
	t.Run("another mode, and off again", func(t *testing.T) {
		e := newEdge(t, rule.Limits{})
		e.Listen("192.0.2.1:25")
		e.Do(func() error {
			a, err := e.filter.Attach("eth0", loader.Generic)
			if a.Mode != loader.Generic {
				t.Errorf("generic: %+v", a)
			}
			return err
		})
		if reached(t, e.peer, "192.0.2.3", "192.0.2.1:25") {
			t.Error("the stranger came through in generic mode")
		}
		e.Do(func() error { return e.filter.Detach("eth0") })
		if !reached(t, e.peer, "192.0.2.3", "192.0.2.1:25") {
			t.Error("the stranger is refused after detaching")
		}
	})
}

// occupy puts a program of somebody else's on an interface.
func occupy(t *testing.T, h *lab.Host, name string) {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "squatter", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	h.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		x, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: l.Attrs().Index})
		if err == nil {
			t.Cleanup(func() { x.Close() })
		}
		return err
	})
}
