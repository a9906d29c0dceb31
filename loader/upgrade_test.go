package loader

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

// openOlder makes a filter whose program differs from this build's, as an
// older version's would, with maps of the same layout, or after what changes it
// of another.
func openOlder(t *testing.T, dir string, change ...func(*Filter)) *Filter {
	t.Helper()
	f, err := newFilter(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := f.dir.lock()
	if err != nil {
		t.Fatal(err)
	}
	f.closers = append(f.closers, unlock)
	for _, fn := range change {
		fn(f)
	}
	prog := f.spec.Programs[filterProgSynward]
	head := asm.Mov.Imm(asm.R0, 0).WithMetadata(prog.Instructions[0].Metadata)
	prog.Instructions[0].Metadata = asm.Metadata{}
	prog.Instructions = append(asm.Instructions{head}, prog.Instructions...)
	if err := f.create(); err != nil {
		t.Fatal(err)
	}
	st, err := f.state()
	if err != nil {
		t.Fatal(err)
	}
	st.Build++ // another object's
	st.Version -= uint32(len(change))
	if err := f.maps.States.Put(uint32(0), st); err != nil {
		t.Fatal(err)
	}
	if err := f.keepLedger(); err != nil {
		t.Fatal(err)
	}
	return f
}

// A newer program takes the old one's place while strangers knock and a partner
// talks: no stranger comes through, the connection goes on, and so do counts and
// counters.
func TestUpgradeUnderTraffic(t *testing.T) {
	for _, mode := range modes() {
		t.Run(string(mode), func(t *testing.T) { upgradeUnderTraffic(t, mode) })
	}
}

// modes are those that this kernel has.
func modes() []Mode {
	if !haveTCX() {
		return []Mode{Native}
	}
	return []Mode{Native, TCX}
}

func upgradeUnderTraffic(t *testing.T, mode Mode) {
	s := newUpgradeScene(t, mode, mode)
	ids := runs(t, s.dir)
	ctx, stop := context.WithCancel(t.Context())
	through, talked := knock(ctx, s.stranger), s.talk(ctx)
	s.leave()
	f, err := Open(Options{PinDir: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	time.Sleep(100 * time.Millisecond) // strangers after the change, too
	stop()
	if n := <-through; n > 0 {
		t.Errorf("%d strangers came through the upgrade", n)
	}
	if err := <-talked; err != nil {
		t.Errorf("the connection during the upgrade: %v", err)
	}
	want := f.prog
	if mode == TCX {
		want = f.tcx
	}
	for i, now := range runs(t, s.dir) {
		if slices.Contains(ids, now) || now != idOf(t, want) {
			t.Errorf("program %d is on eth%d, before it was of %d; want %d", now, i, ids, idOf(t, want))
		}
	}
	s.countersGoOn(f)
	s.enforced(1)
	if ans, err := f.Probe(netip.MustParseAddr("192.0.2.3"), 25); err != nil || ans.Reason != NoEntry {
		t.Errorf("probe after the upgrade: %+v, %v", ans, err)
	}
	s.conn.Close()
	s.counts(0)
}

// An upgrade that fails half way leaves the old program in force on every
// interface, and the next try succeeds.
func TestFailedUpgradeLeavesTheOldOne(t *testing.T) {
	for _, mode := range modes() {
		t.Run(string(mode), func(t *testing.T) { failUpgrade(t, mode) })
	}
}

func failUpgrade(t *testing.T, mode Mode) {
	s := newUpgradeScene(t, mode, mode)
	ids := runs(t, s.dir)
	// a pin that is no link, after the others: the step that fails
	broken := filepath.Join(s.dir, "links", "999")
	if err := s.old.maps.States.Pin(broken); err != nil {
		t.Fatal(err)
	}
	s.leave()
	if f, err := Open(Options{PinDir: s.dir}); err == nil {
		f.Close()
		t.Fatal("the upgrade did not fail")
	}
	s.goesOn(ids)
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	f, err := Open(Options{PinDir: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := runs(t, s.dir); slices.Contains(ids, got[0]) || slices.Contains(ids, got[1]) {
		t.Error("an old program is still attached after the second try")
	}
	s.enforced(1)
	s.conn.Close()
	s.counts(0)
}

// otherLayout makes the maps an older version's.
func otherLayout(f *Filter) { f.spec.Maps[filterMapMeters].MaxEntries /= 2 }

func testPolicy(allow string) rule.Policy {
	return rule.Policy{
		Ports: []rule.Port{{Number: 25, Default: rule.Drop}}, IPv6Prefix: 64,
		Entries: slices.Values([]rule.Entry{{ID: 100, Verdict: rule.Pass, Limits: rule.Limits{Conns: 5}}}),
		Rules:   slices.Values([]rule.Rule{{Prefix: netip.MustParsePrefix(allow), Steps: []rule.Step{{Ports: [rule.MaxPorts]uint64{100}}}}}),
	}
}

// Where the maps have another layout, the new filter takes over once it has the
// policy: no stranger comes through, an open connection goes on and counts, and
// so do the counters.
func TestLayoutUpgradeUnderTraffic(t *testing.T) {
	// by XDP and, where there is one, by TCX
	s := newUpgradeScene(t, modes()[len(modes())-1], Native, otherLayout)
	ids := runs(t, s.dir)
	ctx, stop := context.WithCancel(t.Context())
	through, talked := knock(ctx, s.stranger), s.talk(ctx)
	time.Sleep(50 * time.Millisecond)
	s.leave()
	f := s.openBeside(ids)
	defer func() { f.Close() }()
	s.edge.Do(func() error { _, err := f.Sync(testPolicy("198.51.100.2/32")); return err })
	time.Sleep(50 * time.Millisecond) // strangers after the change, too
	stop()
	if n := <-through; n > 0 {
		t.Errorf("%d strangers came through the upgrade", n)
	}
	if err := <-talked; err != nil {
		t.Errorf("the connection during the upgrade: %v", err)
	}
	for i, now := range runs(t, s.dir) {
		if slices.Contains(ids, now) {
			t.Errorf("the old program is still on eth%d", i)
		}
	}
	s.countersGoOn(f)
	s.enforced(1)
	s.conn.Close()
	s.counts(0)
	if _, err := os.Stat(f.dir.stagingDir()); err == nil {
		t.Error("the old filter's pins are still there")
	}
	f.Close()
	var err error
	if f, err = Open(Options{PinDir: s.dir}); err != nil || f.succeeds {
		t.Fatalf("open once more: %v", err)
	}
}

// openBeside is the filter that is to follow that of the older layout, whose
// programs go on until it has a policy.
func (s *upgradeScene) openBeside(programs []ebpf.ProgramID) (f *Filter) {
	s.t.Helper()
	s.edge.Do(func() (err error) {
		if f, err = Open(Options{PinDir: s.dir}); err != nil {
			return err
		}
		if !slices.Equal(runs(s.t, s.dir), programs) {
			s.t.Error("the new filter is in force before it has a policy")
		}
		if _, err := f.Attach("eth0", Native); err == nil {
			s.t.Error("a filter without its policy can be attached")
		}
		return nil
	})
	return f
}

// A layout upgrade that fails leaves the old filter in force on every interface,
// and the next try succeeds.
func TestFailedLayoutUpgradeLeavesTheOldOne(t *testing.T) {
	s := newUpgradeScene(t, Native, modes()[len(modes())-1], otherLayout)
	ids := runs(t, s.dir)
	broken := filepath.Join(s.dir, "links", "999") // a pin that is no link
	if err := s.old.maps.States.Pin(broken); err != nil {
		t.Fatal(err)
	}
	s.leave()
	f := s.openBeside(ids)
	defer f.Close()
	sync := func() error {
		return s.edge.Try(func() error { _, err := f.Sync(testPolicy("198.51.100.2/32")); return err })
	}
	if err := sync(); err == nil {
		t.Error("the upgrade did not fail")
	}
	s.goesOn(ids)
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if err := sync(); err != nil {
		t.Fatal(err)
	}
	if got := runs(t, s.dir); slices.Contains(ids, got[0]) || slices.Contains(ids, got[1]) {
		t.Error("an old program is still attached after the second try")
	}
	s.enforced(1)
	s.conn.Close()
	s.counts(0)
}

// knock dials the edge over and over until the context ends, and then tells
// how often it came through.
func knock(ctx context.Context, peer *lab.Host) <-chan int {
	n := make(chan int, 1)
	go func() {
		through := 0
		for ctx.Err() == nil {
			if c, err := peer.Dial("", "192.0.2.1:25", 2*time.Millisecond); err == nil {
				c.Close()
				through++
			}
		}
		n <- through
	}()
	return n
}

func idOf(t *testing.T, prog *ebpf.Program) ebpf.ProgramID {
	t.Helper()
	info, err := prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}

// runs are the programs of the pinned links, by the interfaces' indexes.
func runs(t *testing.T, dir string) (ids []ebpf.ProgramID) {
	t.Helper()
	pins, err := filepath.Glob(filepath.Join(dir, "links", "?")) // not the broken one, 999
	if err != nil || len(pins) == 0 {
		t.Fatalf("links %v, %v", pins, err)
	}
	for _, pin := range pins {
		l, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, info.Program)
	}
	return ids
}

// What Go repeats by hand must be what the C side says.
func TestConstantsAgree(t *testing.T) {
	if filterDecisionDECISION_PASS != filterDecision(rule.Pass) || filterDecisionDECISION_DROP != filterDecision(rule.Drop) {
		t.Error("rule.Verdict differs from enum decision")
	}
	if len(filterConfig{}.Ports) != rule.MaxPorts {
		t.Errorf("rule.MaxPorts is not MAX_PORTS = %d", len(filterConfig{}.Ports))
	}
	for r := range Reason(filterReasonREASON_COUNT) {
		var back Reason
		if r.name() == "" || back.UnmarshalText([]byte(r.String())) != nil || back != r {
			t.Errorf("reason %d has no name that reads back", r)
		}
	}
}
