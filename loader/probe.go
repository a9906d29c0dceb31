package loader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/synward/synward/loader/rule"
)

// probeMagic is PROBE_MAGIC of bpf/abi.h.
const probeMagic = 0x53594e57

// xdpDrop is XDP_DROP of include/uapi/linux/bpf.h.
const xdpDrop = 1

// Answer is the kernel's verdict on one packet.
type Answer struct {
	Verdict  rule.Verdict `json:"verdict"`
	Reason   Reason       `json:"reason"`
	Observed bool         `json:"observed,omitempty"` // the verdict is counted, not enforced
	EntryID  uint64       `json:"entry_id,omitempty"` // 0 = no entry decided
	Open     uint32       `json:"open"`               // the source's connections now, where it may pass
	Conns    uint32       `json:"conns"`              // its cap on them, 0 = none
}

// Probe asks the loaded program for the verdict on a SYN from src to port now,
// by a test run that moves no counter, no cap and no event.
func (f *Filter) Probe(src netip.Addr, port uint16) (Answer, error) {
	return f.ProbeFrame(SYN(src, port))
}

// xdpContext is struct xdp_md of include/uapi/linux/bpf.h as a test run takes it.
type xdpContext struct {
	Data, DataEnd, DataMeta, Ifindex, Queue, Egress uint32
}

// ProbeFrame is Probe for a whole Ethernet frame.
func (f *Filter) ProbeFrame(frame []byte) (Answer, error) {
	q := filterProbe{Magic: probeMagic}
	var in bytes.Buffer
	if err := binary.Write(&in, binary.NativeEndian, &q); err != nil {
		return Answer{}, fmt.Errorf("encode the probe: %w", err)
	}
	size := uint32(in.Len())
	in.Write(frame)
	out := make([]byte, in.Len())
	action, err := f.prog.Run(&ebpf.RunOptions{
		Data:    in.Bytes(),
		DataOut: out,
		Context: xdpContext{Data: size, DataEnd: uint32(in.Len())},
	})
	if err != nil {
		return Answer{}, fmt.Errorf("ask the filter: %w", err)
	}
	if err := binary.Read(bytes.NewReader(out), binary.NativeEndian, &q); err != nil {
		return Answer{}, fmt.Errorf("read the filter's answer: %w", err)
	}
	a := Answer{Verdict: rule.Pass, Reason: Reason(q.Reason), Observed: q.Observed != 0, EntryID: q.Entry, Open: q.Open, Conns: q.Conns}
	if action == xdpDrop || a.Observed {
		a.Verdict = rule.Drop
	}
	return a, nil
}

// SYN is the frame that opens a connection from src to port.
func SYN(src netip.Addr, port uint16) []byte {
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp[0:], 40000)
	binary.BigEndian.PutUint16(tcp[2:], port)
	tcp[12], tcp[13] = 5<<4, 0x02
	frame := make([]byte, 14, 74)
	if src.Is4() {
		binary.BigEndian.PutUint16(frame[12:], 0x0800)
		ip := make([]byte, 20)
		ip[0], ip[8], ip[9] = 0x45, 64, 6
		binary.BigEndian.PutUint16(ip[2:], 40)
		copy(ip[12:], src.AsSlice())
		return append(append(frame, ip...), tcp...)
	}
	binary.BigEndian.PutUint16(frame[12:], 0x86dd)
	ip := make([]byte, 40)
	ip[0], ip[6], ip[7] = 0x60, 6, 64
	binary.BigEndian.PutUint16(ip[4:], 20)
	copy(ip[8:], src.AsSlice())
	return append(append(frame, ip...), tcp...)
}
