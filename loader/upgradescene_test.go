package loader

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/synward/synward/test/lab"
)

// upgradeScene is an edge with an older version's filter, a stranger on its
// eth0, and on its eth1 a partner, who has a connection open.
type upgradeScene struct {
	t                       *testing.T
	edge, stranger, partner *lab.Host
	dir                     string
	old                     *Filter
	conn                    net.Conn
	before                  map[Reason]uint64 // the old filter's counters, once it is let go of
}

func newUpgradeScene(t *testing.T, eth0, eth1 Mode, older ...func(*Filter)) *upgradeScene {
	t.Helper()
	s := &upgradeScene{t: t, edge: lab.NewHost(t, "edge"), stranger: lab.NewHost(t, "stranger"), partner: lab.NewHost(t, "partner")}
	lab.Connect(s.edge, "eth0", s.stranger, "eth0")
	lab.Connect(s.edge, "eth1", s.partner, "eth0")
	s.edge.Address("eth0", "192.0.2.1/24")
	s.edge.Address("eth1", "198.51.100.1/24")
	s.stranger.Address("eth0", "192.0.2.3/24")
	s.partner.Address("eth0", "198.51.100.2/24")
	s.edge.Echo("0.0.0.0:25")
	s.dir = filepath.Join(lab.BPFFS(t), "synward")
	s.old = openOlder(t, s.dir, older...)
	if _, err := s.old.Sync(testPolicy("198.51.100.2/32")); err != nil {
		t.Fatal(err)
	}
	s.edge.Do(func() error { _, err := s.old.Attach("eth0", eth0); return err })
	s.edge.Do(func() error { _, err := s.old.Attach("eth1", eth1); return err })
	s.conn = s.dial()
	s.enforced(1)
	return s
}

// dial is a new connection of the partner's, over which data have gone.
func (s *upgradeScene) dial() net.Conn {
	s.t.Helper()
	c, err := s.partner.Dial("", "198.51.100.1:25", 5*time.Second)
	if err != nil {
		s.t.Fatalf("a partner who may connect: %v", err)
	}
	s.t.Cleanup(func() { c.Close() })
	if err := exchange(c); err != nil {
		s.t.Fatalf("a partner's new connection: %v", err)
	}
	return c
}

// exchange says something and waits until it comes back.
func exchange(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("NOOP\r\n")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 6))
	return err
}

// talk exchanges over the connection until the context ends, and then tells
// what went wrong.
func (s *upgradeScene) talk(ctx context.Context) <-chan error {
	result := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if err := exchange(s.conn); err != nil {
				result <- err
				return
			}
		}
		result <- nil
	}()
	return result
}

// leave ends the old version's agent.
func (s *upgradeScene) leave() {
	s.t.Helper()
	s.before = s.counters(s.old)
	s.old.Close()
}

func (s *upgradeScene) counters(f *Filter) map[Reason]uint64 {
	s.t.Helper()
	all, err := f.Counters()
	if err != nil {
		s.t.Fatal(err)
	}
	sums := map[Reason]uint64{}
	for _, c := range all {
		sums[c.Reason] += c.Packets
	}
	return sums
}

// countersGoOn fails where the new filter's counters are not the old one's, with
// what came since. The partner has not connected since, strangers have.
func (s *upgradeScene) countersGoOn(f *Filter) {
	s.t.Helper()
	now := s.counters(f)
	if was := s.before[Allowed]; was == 0 || now[Allowed] != was {
		s.t.Errorf("%d attempts allowed after the upgrade, %d before it", now[Allowed], was)
	}
	if was := s.before[NoEntry]; was == 0 || now[NoEntry] < was {
		s.t.Errorf("%d strangers dropped after the upgrade, %d before it", now[NoEntry], was)
	}
}

// enforced fails unless the filter does what its policy says, whichever filter
// it is: the open connection carries data and counts, a stranger meets silence,
// and a partner's new connection counts until it ends.
func (s *upgradeScene) enforced(open uint64) {
	s.t.Helper()
	if err := exchange(s.conn); err != nil {
		s.t.Errorf("the connection that was open: %v", err)
	}
	s.counts(open)
	if c, err := s.stranger.Dial("", "192.0.2.1:25", 300*time.Millisecond); err == nil {
		c.Close()
		s.t.Error("a stranger came through")
	}
	c := s.dial()
	s.counts(open + 1)
	c.Close()
	s.counts(open)
}

// goesOn says that the old filter is in force: its programs run, and it decides.
func (s *upgradeScene) goesOn(ids []ebpf.ProgramID) {
	s.t.Helper()
	if got := runs(s.t, s.dir); !slices.Equal(got, ids) {
		s.t.Errorf("programs %d are attached after the failure, want the old ones, %d", got, ids)
	}
	s.enforced(1)
}

// counts waits until that many connections count: sockets open and close a
// little after their owner says so.
func (s *upgradeScene) counts(want uint64) {
	s.t.Helper()
	var got uint64
	for range 100 {
		if got = s.counted(); got == want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Errorf("%d connections are counted, want %d", got, want)
}

// counted is how many connections the pinned filter counts, of either version.
func (s *upgradeScene) counted() (open uint64) {
	s.t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(s.dir, "filter", filterMapUsages), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer m.Close()
	var key filterSource
	var use filterUsage
	it := m.Iterate()
	for it.Next(&key, &use) {
		open += use.Open &^ usageIdle
	}
	if err := it.Err(); err != nil {
		s.t.Fatal(err)
	}
	return open
}
