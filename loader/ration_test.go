package loader_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader/rule"
)

// ration is how many RSTs a CPU may send in a window, and window the shortest that
// one is (128 jiffies at HZ=1000).
const (
	ration = 512
	window = 128 * time.Millisecond
)

// wire sends frames by the peer's eth0 and hears what comes in, past its stack.
type wire struct{ fd, ifindex int }

func openWire() (*wire, error) {
	ifc, err := net.InterfaceByName("eth0")
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(hton(unix.ETH_P_IP)))
	if err != nil {
		return nil, err
	}
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	return &wire{fd, ifc.Index}, errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifc.Index, Protocol: hton(unix.ETH_P_IP)}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
	)
}

func (w *wire) send(frame []byte) error {
	err := unix.Sendto(w.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.ifindex})
	if errors.Is(err, unix.ENOBUFS) {
		return nil
	}
	return err
}

// hear calls fn with each TCP segment that comes, until fn says enough or nothing
// comes any more.
func (w *wire) hear(fn func(tcp []byte) (enough bool)) {
	buf := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(w.fd, buf, 0)
		if err != nil {
			return
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if ok && ll.Pkttype == unix.PACKET_HOST && n >= 54 && buf[23] == unix.IPPROTO_TCP && fn(buf[34:n]) {
			return
		}
	}
}

// half sends SYNs and makes of each frame the ACK that finishes its handshake.
func (w *wire) half(frames [][]byte) error {
	for _, f := range frames {
		if err := w.send(f); err != nil {
			return err
		}
	}
	missing := len(frames)
	w.hear(func(tcp []byte) bool {
		i := int(binary.BigEndian.Uint16(tcp[2:])) - spoofedPort
		if i < 0 || i >= len(frames) || tcp[13] != 0x12 || frames[i][47] == 0x10 {
			return false
		}
		ack := frames[i][34:]
		ack[13] = 0x10
		binary.BigEndian.PutUint32(ack[4:], 1)
		binary.BigEndian.PutUint32(ack[8:], binary.BigEndian.Uint32(tcp[4:])+1)
		checksum(frames[i])
		missing--
		return missing == 0
	})
	if missing > 0 {
		return fmt.Errorf("%d of %d SYNs were not answered", missing, len(frames))
	}
	return nil
}

// A flood of strangers gets no more RSTs than the ration, so that nobody makes of the
// edge a source of RSTs to others. Who has proved his address and is beyond his cap
// gets his own in the midst of it.
func TestResetsAreRationed(t *testing.T) {
	t.Parallel()
	const surplus, flood, every = 10, 31000, 500 // three ACKs each: a veth may lose some
	e := newEdge(t, rule.Limits{})
	e.peer.PassAll("eth0")
	e.setPort(t, rule.Port{Reset: true}, rule.Limits{Conns: 1})
	serve(e.Host, t, "192.0.2.1:25")
	e.desert(t) // its handshakes are made by hand
	mac := hardware(t, e.peer, "eth0")
	frame := func(src string, port int) []byte {
		f := e.frame(t, src, 25)
		copy(f[6:], mac)
		binary.BigEndian.PutUint16(f[34:], uint16(port))
		checksum(f)
		return f
	}
	stranger := frame("192.0.2.3", spoofedPort-1)
	var acks [][]byte
	for i := range surplus + 1 {
		acks = append(acks, frame("192.0.2.2", spoofedPort+i))
	}
	resets := map[int]int{} // by the port that they go to
	var took time.Duration
	e.peer.Do(func() error {
		w, err := openWire()
		if err != nil {
			return err
		}
		defer unix.Close(w.fd)
		if err := errors.Join(pin(0), w.half(acks), w.send(acks[0])); err != nil {
			return err
		}
		begin := time.Now()
		for i := range flood {
			f := stranger
			if n := i / every; i%every == 0 && n >= 2 && n < 2+3*surplus { // the ration is used up
				f = acks[1+(n-2)%surplus]
			}
			if err := w.send(f); err != nil {
				return err
			}
		}
		took = time.Since(begin)
		w.hear(func(tcp []byte) bool {
			if tcp[13]&0x04 != 0 {
				resets[int(binary.BigEndian.Uint16(tcp[2:]))]++
			}
			return false
		})
		return nil
	})
	if n, most := resets[spoofedPort-1], ration*(int(took/window)+2); n == 0 || n > most {
		t.Errorf("%d RSTs for %d SYNs in %v, at most %d by the ration", n, flood, took, most)
	}
	for i := range surplus {
		if resets[spoofedPort+1+i] == 0 {
			t.Errorf("connection %d beyond the cap got no RST", i)
		}
	}
	if open, _ := e.open(t, "192.0.2.2"); open != 1 || resets[spoofedPort] != 0 {
		t.Errorf("%d connections open and %d reset under a cap of 1", open, resets[spoofedPort])
	}
}
