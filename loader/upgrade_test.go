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

// A newer program takes the old one's place while strangers knock: none comes
// through, and the counters go on.
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
	edge, peer := lab.NewHost(t, "edge"), lab.NewHost(t, "peer")
	lab.Connect(edge, "eth0", peer, "eth0")
	edge.Address("eth0", "192.0.2.1/24")
	peer.Address("eth0", "192.0.2.3/24")
	edge.Listen("192.0.2.1:25")
	dir := filepath.Join(lab.BPFFS(t), "synward")
	old := openOlder(t, dir)
	if _, err := old.Sync(rule.Policy{
		Ports: []rule.Port{{Number: 25, Default: rule.Drop}}, IPv6Prefix: 64,
		Entries: slices.Values([]rule.Entry{}), Rules: slices.Values([]rule.Rule{}),
	}); err != nil {
		t.Fatal(err)
	}
	edge.Do(func() error { _, err := old.Attach("eth0", mode); return err })
	before := runs(t, dir)[0]
	ctx, stop := context.WithCancel(t.Context())
	through := knock(ctx, peer)
	old.Close()
	f, err := Open(Options{PinDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	time.Sleep(100 * time.Millisecond) // strangers after the change, too
	stop()
	if n := <-through; n > 0 {
		t.Errorf("%d strangers came through the upgrade", n)
	}
	want := f.prog
	if mode == TCX {
		want = f.tcx
	}
	if now := runs(t, dir)[0]; now == before || now != idOf(t, want) {
		t.Errorf("program %d is attached, before it was %d; want %d", now, before, idOf(t, want))
	}
	if c, err := f.Counters(); err != nil || len(c) != 1 || c[0].Packets < 10 {
		t.Errorf("counters after the upgrade: %+v, %v", c, err)
	}
	if ans, err := f.Probe(netip.MustParseAddr("192.0.2.3"), 25); err != nil || ans.Reason != NoEntry {
		t.Errorf("probe after the upgrade: %+v, %v", ans, err)
	}
}

// An upgrade that fails half way leaves the old program on every interface, and
// the next try succeeds.
func TestFailedUpgradeLeavesTheOldOne(t *testing.T) {
	for _, mode := range modes() {
		t.Run(string(mode), func(t *testing.T) { failUpgrade(t, mode) })
	}
}

func failUpgrade(t *testing.T, mode Mode) {
	edge := lab.NewHost(t, "edge")
	lab.Connect(edge, "eth0", lab.NewHost(t, "peer"), "eth0")
	dir := filepath.Join(lab.BPFFS(t), "synward")
	old := openOlder(t, dir)
	edge.Do(func() error { _, err := old.Attach("eth0", mode); return err })
	id := runs(t, dir)[0]
	// a pin that is no link, after eth0's: the step that fails
	if err := old.maps.States.Pin(filepath.Join(dir, "links", "999")); err != nil {
		t.Fatal(err)
	}
	old.Close()
	if f, err := Open(Options{PinDir: dir}); err == nil {
		f.Close()
		t.Fatal("the upgrade did not fail")
	}
	if got := runs(t, dir)[0]; got != id {
		t.Errorf("program %d is attached after the failure, want the old one, %d", got, id)
	}
	if err := os.Remove(filepath.Join(dir, "links", "999")); err != nil {
		t.Fatal(err)
	}
	f, err := Open(Options{PinDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if runs(t, dir)[0] == id {
		t.Error("the old program is still attached after the second try")
	}
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
	edge, peer, partner := lab.NewHost(t, "edge"), lab.NewHost(t, "peer"), lab.NewHost(t, "partner")
	lab.Connect(edge, "eth0", peer, "eth0")
	lab.Connect(edge, "eth1", partner, "eth0")
	edge.Address("eth0", "192.0.2.1/24")
	edge.Address("eth1", "198.51.100.1/24")
	peer.Address("eth0", "192.0.2.3/24")
	partner.Address("eth0", "198.51.100.2/24")
	edge.Listen("192.0.2.1:25")
	edge.ListenRaw("198.51.100.1:25") // nobody closes what it takes
	dir := filepath.Join(lab.BPFFS(t), "synward")
	old := openOlder(t, dir, otherLayout)
	if _, err := old.Sync(testPolicy("198.51.100.2/32")); err != nil {
		t.Fatal(err)
	}
	mode := modes()[len(modes())-1] // by XDP and, where there is one, by TCX
	edge.Do(func() error { _, err := old.Attach("eth0", mode); return err })
	edge.Do(func() error { _, err := old.Attach("eth1", Native); return err })
	conn, err := partner.Dial("", "198.51.100.1:25", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, stop := context.WithCancel(t.Context())
	through := knock(ctx, peer)
	time.Sleep(50 * time.Millisecond)
	ids := runs(t, dir)
	before, err := old.Counters()
	if err != nil {
		t.Fatal(err)
	}
	old.Close()
	var f *Filter
	edge.Do(func() error {
		if f, err = Open(Options{PinDir: dir}); err != nil {
			return err
		}
		if !slices.Equal(runs(t, dir), ids) {
			t.Error("the new filter is in force before it has a policy")
		}
		if _, err := f.Attach("eth0", Native); err == nil {
			t.Error("a filter without its policy can be attached")
		}
		_, err := f.Sync(testPolicy("198.51.100.2/32"))
		return err
	})
	defer f.Close()
	time.Sleep(50 * time.Millisecond) // strangers after the change, too
	stop()
	if n := <-through; n > 0 {
		t.Errorf("%d strangers came through the upgrade", n)
	}
	for i, now := range runs(t, dir) {
		if slices.Contains(ids, now) {
			t.Errorf("the old program is still on eth%d", i)
		}
	}
	sources, err := f.Sources()
	if err != nil || len(sources) != 1 || sources[0].Open != 1 {
		t.Errorf("sources after the upgrade: %+v, %v: want the open connection", sources, err)
	}
	conn.Close()
	if after, err := f.Counters(); err != nil || len(after) == 0 || after[0].Packets < before[0].Packets {
		t.Errorf("counters %+v, %v; before the upgrade %+v", after, err, before)
	}
	if _, err := os.Stat(f.dir.stagingDir()); err == nil {
		t.Error("the old filter's pins are still there")
	}
	f.Close()
	if f, err = Open(Options{PinDir: dir}); err != nil || f.succeeds {
		t.Fatalf("open once more: %v", err)
	}
	f.Close()
}

// A layout upgrade that fails leaves the old filter on every interface, and the
// next try succeeds.
func TestFailedLayoutUpgradeLeavesTheOldOne(t *testing.T) {
	edge := lab.NewHost(t, "edge")
	lab.Connect(edge, "eth0", lab.NewHost(t, "peer"), "eth0")
	dir := filepath.Join(lab.BPFFS(t), "synward")
	old := openOlder(t, dir, otherLayout)
	lab.Connect(edge, "eth1", lab.NewHost(t, "partner"), "eth0")
	edge.Do(func() error { _, err := old.Attach("eth0", Native); return err })
	edge.Do(func() error { _, err := old.Attach("eth1", modes()[len(modes())-1]); return err })
	ids := runs(t, dir)
	broken := filepath.Join(dir, "links", "999") // a pin that is no link
	if err := old.maps.States.Pin(broken); err != nil {
		t.Fatal(err)
	}
	old.Close()
	f, err := Open(Options{PinDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	edge.Do(func() error {
		if _, err := f.Sync(testPolicy("198.51.100.2/32")); err == nil {
			t.Error("the upgrade did not fail")
		}
		if got := runs(t, dir); !slices.Equal(got, ids) {
			t.Errorf("programs %d are attached after the failure, want the old ones, %d", got, ids)
		}
		if err := os.Remove(broken); err != nil {
			return err
		}
		if _, err := f.Sync(testPolicy("198.51.100.2/32")); err != nil {
			return err
		}
		if got := runs(t, dir); slices.Contains(ids, got[0]) || slices.Contains(ids, got[1]) {
			t.Error("an old program is still attached after the second try")
		}
		return nil
	})
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
