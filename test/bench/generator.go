package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	listLen  = 1 << 20 // of each list of sources; the generator's map has room for four
	frameLen = 60      // the shortest that Ethernet has
	batch    = 64      // frames between two flushes, as many as a NIC's poll takes
)

// The hosts' addresses; the same on every pair of them.
var (
	serverMAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	clientMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	nobodyMAC = net.HardwareAddr{2, 0, 0, 0, 0, 3}
	server    = netip.MustParseAddr("198.18.0.1")
	client    = netip.MustParseAddr("198.18.0.2")
	gateway   = netip.MustParseAddr("198.18.0.3") // of what answers strangers; nobody's
)

// sourceList is which sources a flood comes from.
type sourceList uint32

const (
	fromStrangers sourceList = iota
	fromAllowed              // any prefix of the largest policy
	fromPartners             // a thousand of its prefixes
	fromHosts                // a thousand addresses
)

// generator sends SYNs out of interfaces.
type generator struct{ genObjects }

func newGenerator(s *stage, lists ...[]uint32) (*generator, error) {
	g := &generator{}
	if err := loadGenObjects(&g.genObjects, nil); err != nil {
		return nil, fmt.Errorf("load the generator: %w", err)
	}
	s.Cleanup(func() { g.Close() })
	mem, err := g.genMaps.Sources.Memory()
	if err != nil {
		return nil, fmt.Errorf("map the generator's sources: %w", err)
	}
	for i, list := range lists {
		b := make([]byte, 8*listLen)
		for at, a := range list {
			address := binary.BigEndian.AppendUint32(nil, a)
			binary.NativeEndian.PutUint64(b[8*at:], uint64(binary.NativeEndian.Uint32(address)))
		}
		if _, err := mem.WriteAt(b, int64(i*len(b))); err != nil {
			return nil, fmt.Errorf("write the generator's sources: %w", err)
		}
	}
	return g, nil
}

// flood is one run of the generator.
type flood struct {
	ifindex int              // out of which interface; 0: none, the generator alone
	to      net.HardwareAddr // of the frames
	from    sourceList
	rate    int // frames a second; 0: as fast as it goes
}

func (g *generator) set(f flood) ([]byte, error) {
	frame, ipSum, tcpSum := makeFrame(f.to)
	interval := uint64(0)
	if f.rate > 0 {
		interval = uint64(time.Second) / uint64(f.rate)
	}
	v := &g.genVariables
	return frame, errors.Join(
		v.Ifindex.Set(uint32(f.ifindex)), v.First.Set(uint32(f.from)*listLen), v.Mask.Set(uint32(listLen-1)),
		v.IpSum.Set(ipSum), v.TcpSum.Set(tcpSum), v.Interval.Set(interval))
}

// makeFrame is a SYN to port 25 without source, source port and sequence
// number, and the sums over it that those are added to.
func makeFrame(to net.HardwareAddr) (frame []byte, ipSum, tcpSum uint32) {
	f := append(append(make([]byte, 0, frameLen), to...), clientMAC...)
	f = append(f, 0x08, 0x00)
	f = append(f, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, unix.IPPROTO_TCP, 0, 0, 0, 0, 0, 0)
	f = append(f, server.AsSlice()...)
	f = append(f, 0, 0, 0, 25, 0, 0, 0, 0, 0, 0, 0, 0, 5<<4, 0x02, 0xff, 0xff, 0, 0, 0, 0)
	ip, tcp := f[14:34], f[34:54]
	pseudo := append([]byte{0, unix.IPPROTO_TCP, 0, 20}, server.AsSlice()...)
	return append(f, make([]byte, frameLen-len(f))...), sum16(ip), sum16(pseudo) + sum16(tcp)
}

// sum16 adds words as the machine reads them: the ones' complement sum does not
// mind (RFC 1071).
func sum16(b []byte) (sum uint32) {
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.NativeEndian.Uint16(b[i:]))
	}
	return sum
}

// testRun is union bpf_attr's part for BPF_PROG_TEST_RUN. The library's own
// call has no batch and starts again after a signal, which is what ends ours.
type testRun struct {
	progFD, retval, dataSizeIn, dataSizeOut uint32
	dataIn, dataOut                         uint64
	repeat, duration, ctxSizeIn, ctxSizeOut uint32
	ctxIn, ctxOut                           uint64
	flags, cpu, batchSize, pad              uint32
}

const (
	cmdTestRun = 10     // BPF_PROG_TEST_RUN, include/uapi/linux/bpf.h
	liveFrames = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
)

// run sends n frames from this thread, in this thread's network namespace.
func (g *generator) run(f flood, n int) error {
	frame, err := g.set(f)
	if err != nil {
		return fmt.Errorf("set the generator: %w", err)
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&frame[0])
	attr := testRun{
		progFD: uint32(g.Generate.FD()), dataSizeIn: uint32(len(frame)), dataIn: uint64(uintptr(unsafe.Pointer(&frame[0]))),
		repeat: uint32(n), flags: liveFrames, batchSize: batch,
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, cmdTestRun, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return fmt.Errorf("send frames: %w", errno)
	}
	return nil
}

// pace sends at the flood's rate until ctx ends. One call of the kernel's does
// it, since each has to wait for a grace period.
func (g *generator) pace(ctx context.Context, f flood) error {
	tid := unix.Gettid()
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-ctx.Done():
		case <-done:
			return
		}
		for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
			select {
			case <-done:
				tick.Stop()
				return
			default: // Go's runtime takes this signal for one of its own, and nothing happens
				_ = unix.Tgkill(unix.Getpid(), tid, unix.SIGURG)
			}
		}
	}()
	defer func() { close(done); <-ended }()
	for ctx.Err() == nil {
		if err := g.run(f, 1<<31); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return nil
}
