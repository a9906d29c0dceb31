package loader_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/synward/synward/loader/rule"
)

// A SYN in pieces gives no connection, not even to whom is allowed; the same
// pieces to another port do, so it is the filter that stops them.
func TestNoSYNInPieces(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.Listen("192.0.2.1:25")
	e.Listen("192.0.2.1:80")
	for i, c := range []struct {
		src      string
		port     uint16
		cut      int // bytes of TCP in the first piece
		reversed bool
		want     bool
	}{
		{"192.0.2.2", 80, 8, false, true},
		{"192.0.2.2", 80, 16, true, true},
		{"192.0.2.3", 25, 8, false, false},
		{"192.0.2.3", 25, 16, false, false},
		{"192.0.2.3", 25, 8, true, false},
		{"192.0.2.2", 25, 16, true, false},
		{"192.0.2.2", 25, 8, false, false},
	} {
		whole := e.frame(t, c.src, c.port)
		whole[35] = byte(i) // a source port of its own
		checksum(whole)
		pieces := [][]byte{piece(whole, 0, c.cut, 0x2000), piece(whole, c.cut, 20, 0)}
		if c.reversed {
			slices.Reverse(pieces)
		}
		if got := e.answered(t, c.port, pieces...); got != c.want {
			t.Errorf("%+v: answered %v", c, got)
		}
	}
}

// piece is a fragment of a frame: its bytes of TCP from one place to another.
func piece(whole []byte, from, to int, more uint16) []byte {
	f := append(slices.Clone(whole[:34]), whole[34+from:34+to]...)
	binary.BigEndian.PutUint16(f[16:], uint16(20+to-from))
	binary.BigEndian.PutUint16(f[18:], 4711+uint16(whole[35]))
	binary.BigEndian.PutUint16(f[20:], more|uint16(from/8))
	f[24], f[25] = 0, 0
	sum := words(f[14:34])
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(f[24:], ^uint16(sum))
	return f
}

// Pieces that overlap give no connection either: a first one without SYN may pass
// where its source may connect, and what would write a SYN over it makes Linux
// discard them all, whichever comes first. (RFC 1858 section 3; RFC 5722.)
func TestNoSYNInOverlappingPieces(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.Listen("[::]:25")
	e.Listen("[::]:80")
	id := byte(0)
	for _, src := range []string{"192.0.2.2", "192.0.2.3", "2001:db8::2", "2001:db8::3"} {
		for _, port := range []uint16{25, 80} { // at 80 it is Linux alone
			if port == 80 && src[len(src)-1] == '3' {
				continue
			}
			for _, reversed := range []bool{false, true} {
				id++
				syn := e.frame(t, src, port)
				cut := piece
				if netip.MustParseAddr(src).Is6() {
					cut = piece6
				}
				tcp := len(syn) - 20
				syn[tcp+1] = id
				checksumAny(syn)
				ack := slices.Clone(syn)
				ack[tcp+13] = 0x10
				pieces := [][]byte{cut(ack, 0, 16, 0x2000), cut(syn, 8, 20, 0)}
				if reversed {
					slices.Reverse(pieces)
				}
				if e.answered(t, port, pieces...) {
					t.Errorf("%s to port %d, reversed %v: an overlapping SYN was answered", src, port, reversed)
				}
			}
		}
	}
}

// The same for IPv6, where Linux wants the whole TCP header in the first piece
// (RFC 8200 section 4.5). An atomic fragment is a whole packet (RFC 6946).
func TestNoSYNInPiecesIPv6(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.Listen("[::]:25")
	e.Listen("[::]:80")
	for i, c := range []struct {
		src      string
		port     uint16
		cut      int
		reversed bool
		want     bool
	}{
		{"2001:db8::2", 80, 8, false, false},
		{"2001:db8::2", 80, 24, false, true},
		{"2001:db8::3", 80, 24, true, true},
		{"2001:db8::3", 25, 8, false, false},
		{"2001:db8::3", 25, 24, true, false},
		{"2001:db8::2", 25, 8, false, false},
		{"2001:db8::2", 25, 16, true, false},
		{"2001:db8::2", 25, 24, false, false},
		{"2001:db8::2", 25, 28, false, true}, // atomic
		{"2001:db8::3", 25, 28, false, false},
	} {
		whole := append(e.frame(t, c.src, c.port), 1, 1, 1, 1, 1, 1, 1, 1) // options that do nothing
		whole[19], whole[55], whole[66] = 28, byte(i), 7<<4
		checksumAny(whole)
		pieces := [][]byte{piece6(whole, 0, c.cut, 0x2000), piece6(whole, c.cut, 28, 0)}
		if c.cut == 28 {
			pieces = [][]byte{piece6(whole, 0, 28, 0)}
		}
		if c.reversed {
			slices.Reverse(pieces)
		}
		if got := e.answered(t, c.port, pieces...); got != c.want {
			t.Errorf("%+v: answered %v", c, got)
		}
	}
}

// piece6 is piece for a frame of IPv6.
func piece6(whole []byte, from, to int, more uint16) []byte {
	f := slices.Clone(whole[:54])
	f[20] = 44
	head := make([]byte, 8)
	head[0] = 6
	binary.BigEndian.PutUint16(head[2:], uint16(from)|more>>13)
	binary.BigEndian.PutUint32(head[4:], 4711+uint32(whole[55]))
	f = append(append(f, head...), whole[54+from:54+to]...)
	binary.BigEndian.PutUint16(f[18:], uint16(len(f)-54))
	return f
}

// checksumAny fills in TCP's checksum, and the IPv4 header's.
func checksumAny(frame []byte) {
	if frame[12] == 0x08 {
		checksum(frame)
		return
	}
	tcp := frame[54:]
	tcp[16], tcp[17] = 0, 0
	sum := words(frame[22:54]) + 6 + uint32(len(tcp)) + words(tcp)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
}
