package main

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestPrefixesAreDisjointAndStrangersOutside(t *testing.T) {
	set := randomPrefixes(20_000)
	if len(set) != 20_000 {
		t.Fatalf("%d prefixes", len(set))
	}
	for i, p := range set {
		if p.addr&^mask(p.bits) != 0 || i > 0 && set[i-1].last() >= p.addr {
			t.Fatalf("prefix %d: %s after %s", i, p.netip(), set[max(0, i-1)].netip())
		}
		if covers([]prefix{p}, homeNet) {
			t.Fatalf("%s covers the bench's own hosts", p.netip())
		}
	}
	within := func(a uint32) bool { // the long way
		for _, p := range set {
			if p.netip().Contains(addr4(a)) {
				return true
			}
		}
		return false
	}
	for _, a := range strangers(300, set) {
		if within(a) {
			t.Errorf("stranger %s is inside", addr4(a))
		}
	}
	for _, a := range allowed(300, set) {
		if !within(a) || !covers(set, a) {
			t.Errorf("allowed %s is outside", addr4(a))
		}
	}
}

// The generator adds the source, its port and the sequence number to the sums;
// with those zero they must prove the frame as it is.
func TestFrameSums(t *testing.T) {
	frame, ipSum, tcpSum := makeFrame(serverMAC)
	fold := func(sum uint32) uint16 {
		for sum > 0xffff {
			sum = sum&0xffff + sum>>16
		}
		return ^uint16(sum)
	}
	binary.NativeEndian.PutUint16(frame[24:], fold(ipSum))
	if sum := fold(sum16(frame[14:34])); sum != 0 {
		t.Errorf("IPv4 header: %#x", sum)
	}
	binary.NativeEndian.PutUint16(frame[50:], fold(tcpSum))
	pseudo := append(append(bytes.Clone(frame[26:34]), 0, 6, 0, 20), frame[34:54]...)
	if sum := fold(sum16(pseudo)); sum != 0 {
		t.Errorf("TCP: %#x", sum)
	}
	if len(frame) != frameLen {
		t.Errorf("%d octets", len(frame))
	}
}

func TestSpread(t *testing.T) {
	if got := spreadOf([]float64{9, 1, 5, 3, 7}); got != (spread{5, 3, 7, 1, 9}) {
		t.Errorf("odd: %+v", got)
	}
	if got := spreadOf([]float64{4, 2}); got.Median != 3 {
		t.Errorf("between two: %+v", got)
	}
}

// A report's arithmetic: the generator off, each round by its own floor.
func TestReport(t *testing.T) {
	r, list, costs := &report{Rounds: 2}, []*contender{}, map[*contender][]float64{}
	add := func(name string, prefixes int, ns ...float64) {
		c := &contender{name: name, prefixes: prefixes}
		list, costs[c] = append(list, c), ns
	}
	add(nameAlone, -1, 100, 200)
	add(nameDrop, -1, 200, 400)
	add(namePass, -1, 500, 1000)
	add(nameCount, -1, 4100, 8200)
	for _, n := range sizes {
		add(nameSynward, n, 220, 440)
		add(nameNetdev, n, 1300, 2600)
	}
	add(nameOther, 1_000_000, 700, 1400)
	add(nameKnown, 1_000_000, 600, 1200)
	r.addPackets(list, costs)
	for _, want := range []struct {
		name     string
		prefixes int
		times    float64
	}{{nameSynward, 1_000, 1.2}, {nameNetdev, 100_000, 12}, {nameAllowed, 1_000_000, 3}, {namePartner, 1_000_000, 2}, {nameCount, -1, 40}} {
		if got := r.packet(want.name, want.prefixes).Times; got.Min != got.Max || got.Median < want.times-0.001 || got.Median > want.times+0.001 {
			t.Errorf("%s: %+v, want %v in both rounds", want.name, got, want.times)
		}
	}
	if got := r.packet(nameNetdev, 1_000).Ours; got < 9.99 || got > 10.01 {
		t.Errorf("netdev: %v times synward, want 10", got)
	}
	for _, line := range strings.Split(align([][]string{{"a", "µ"}, {"long", "1"}}), "\n")[:3] {
		if n := len([]rune(line)); n != 12 {
			t.Errorf("line of %d: %q", n, line)
		}
	}
	wellFormed(t, r.plot())
}

func wellFormed(t *testing.T, doc string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(doc))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
