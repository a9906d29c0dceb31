package loader_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
)

// What tc programs answer: include/uapi/linux/bpf.h, enum tcx_action_base.
const (
	tcxNext = ^uint32(0)
	tcxDrop = 2
)

// tally is what the filter counts, by what it counts it under.
type tally map[loader.Counter]uint64

// count adds what the model says that the filter will count for a frame.
func (c tally) count(m model, frame []byte) loader.Answer {
	a := m.judge(frame)
	if a.Reason == loader.NotOurs {
		return a
	}
	key := loader.Counter{Reason: a.Reason, Observed: a.Observed, Verdict: a.Verdict}
	if s := look(frame); s.hidden == 0 {
		key.Port = s.port
	}
	c[key]++
	return a
}

// counted is what the filter has counted.
func counted(t *testing.T, f *loader.Filter) tally {
	t.Helper()
	all, err := f.Counters()
	if err != nil {
		t.Fatal(err)
	}
	c := tally{}
	for _, k := range all {
		n := k.Packets
		k.Packets = 0
		c[k] += n
	}
	return c
}

// since is what has come since an earlier count.
func (c tally) since(was tally) tally {
	d := tally{}
	for k, n := range c {
		if n != was[k] {
			d[k] = n - was[k]
		}
	}
	return d
}

// The program for TCX and the model agree on every frame: by test runs, whose
// skbs have their tags in the frame, and on a wire, where the stack takes the
// first tag out, also where it has put but the Ethernet header in the skb's head.
func TestDifferentialTCX(t *testing.T) {
	e := newEdge(t, rule.Limits{})
	if !e.attachTCX(t) {
		return
	}
	prog, err := ebpf.LoadPinnedProgram(tcxPinPath(e.filter), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	plain, paged := e.wire(t, false), e.wire(t, true)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := &frames{Rand: rand.New(rand.NewPCG(seed, 0))}
	total := tally{}
	for range *rounds {
		m := randomModel(r)
		r.crowded(&m, r.IntN(someCrowds))
		if _, err := e.filter.Sync(m.compiled()); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			maps.Copy(total, e.runBatch(t, prog, m, *r))
			e.sendBatch(t, plain, m, *r)
			withoutIndex(t, e.filter, func() { e.sendBatch(t, paged, m, *r) })
		}
	}
	for _, reason := range []loader.Reason{loader.Allowed, loader.DefaultPass, loader.NoEntry,
		loader.Denied, loader.Fragment, loader.Headers, loader.Truncated, loader.SYNData, loader.Segment} {
		reached := false
		for k := range total {
			reached = reached || k.Reason == reason
		}
		if !reached {
			t.Errorf("no frame was judged %q", reason)
		}
	}
}

// runBatch asks the program by test runs.
func (e *edge) runBatch(t *testing.T, prog *ebpf.Program, m model, r frames) tally {
	t.Helper()
	was, want := counted(t, e.filter), tally{}
	for range 150 {
		frame := r.frame()
		a := want.count(m, frame)
		ret, err := prog.Run(&ebpf.RunOptions{Data: frame})
		if errors.Is(err, unix.EINVAL) && a.Reason == loader.NotOurs && len(frame) < 14+40 {
			continue // newer kernels run none whose IP header is cut; a wire takes it
		}
		if err != nil {
			t.Fatalf("run %x: %v", frame, err)
		}
		if drop := a.Verdict == rule.Drop && !a.Observed; (ret == tcxDrop) != drop || (ret == tcxNext) == drop {
			t.Fatalf("frame %x\nTCX    %d\nmodel  %+v\nports %+v", frame, int32(ret), a, m.ports)
		}
	}
	if got := counted(t, e.filter).since(was); !maps.Equal(got, want) {
		t.Fatalf("test runs\ncounted %v\nmodel   %v", got, want)
	}
	return want
}

// sendBatch puts frames on a wire and waits until the filter has counted them.
func (e *edge) sendBatch(t *testing.T, send func([]byte) ([]byte, error), m model, r frames) {
	t.Helper()
	was, want := counted(t, e.filter), tally{}
	for range 120 {
		frame, err := send(r.frame())
		if err != nil {
			t.Fatalf("send %x: %v", frame, err)
		}
		want.count(m, frame)
	}
	var got tally
	for range 500 {
		if got = counted(t, e.filter).since(was); maps.Equal(got, want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("on the wire\ncounted %v\nmodel   %v\nports %+v", got, want, m.ports)
}

// pagedTail makes a frame longer than a page, from where the kernel takes to
// putting the rest of an skb elsewhere.
const pagedTail = 5000

// wire opens the peer's end for whole frames and returns what sends one. With
// paged, no more than the Ethernet header is in the skb's head, and the frame is
// longer by zeroes.
func (e *edge) wire(t *testing.T, paged bool) func([]byte) ([]byte, error) {
	t.Helper()
	var fd, index int
	e.peer.Do(func() error {
		ifc, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		index = ifc.Index
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		if paged {
			err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
		}
		return err
	})
	for _, h := range []*edge{e, {Host: e.peer}} {
		h.Do(func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(l, 9000)
		})
	}
	return func(frame []byte) ([]byte, error) {
		head := []byte{}
		if paged {
			frame = append(frame, make([]byte, pagedTail)...)
			head = make([]byte, 10) // struct virtio_net_hdr
			binary.NativeEndian.PutUint16(head[2:], 14)
		}
		err := unix.Sendto(fd, append(head, frame...), 0, &unix.SockaddrLinklayer{Ifindex: index})
		for errors.Is(err, unix.ENOBUFS) {
			time.Sleep(time.Millisecond)
			err = unix.Sendto(fd, append(head, frame...), 0, &unix.SockaddrLinklayer{Ifindex: index})
		}
		if err != nil {
			err = fmt.Errorf("%d bytes: %w", len(frame), err)
		}
		return frame, err
	}
}
