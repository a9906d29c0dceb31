package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// binaryForm is the first byte of an entry in binary; JSON begins with another.
const binaryForm = 1

// The parts of an entry that are not always there, in their order.
const (
	hasPorts = 1 << iota
	hasConns
	hasRate
	hasBurst
	isShared
	isRelay
	isImmune
	hasExpiry
	hasFeed
	hasName
	hasNote
	hasBy
	hasAt
)

// The codes of actions and origins, which are their places.
func actions() []Action { return []Action{Allow, Deny} }
func origins() []Origin { return []Origin{Operator, File, Feed, Learned} }

// AppendBinary writes the entry, which must be valid, in a form for programs:
// a tenth of the work of JSON, for a million of them.
func (e Entry) AppendBinary(b []byte) ([]byte, error) {
	action, origin := slices.Index(actions(), e.Action), slices.Index(origins(), e.Origin)
	if action < 0 || origin < 0 || !e.Prefix.IsValid() {
		return b, fmt.Errorf("write entry %s: it is not valid", e.Key())
	}
	b = append(b, binaryForm, byte(action), byte(origin))
	b = binary.BigEndian.AppendUint16(b, e.parts())
	b = append(b, byte(e.Prefix.Addr().BitLen()/8))
	b = append(b, e.Prefix.Addr().AsSlice()...)
	b = append(b, byte(e.Prefix.Bits()))
	if len(e.Ports) > 0 {
		b = binary.AppendUvarint(b, uint64(len(e.Ports)))
		for _, p := range e.Ports {
			b = binary.BigEndian.AppendUint16(b, p)
		}
	}
	if e.MaxConns != nil {
		b = binary.AppendUvarint(b, uint64(*e.MaxConns))
	}
	if e.Rate != nil {
		b = binary.AppendUvarint(b, uint64(e.Rate.N))
		b = binary.AppendUvarint(b, uint64(e.Rate.Period))
	}
	if e.Burst != nil {
		b = binary.AppendUvarint(b, uint64(*e.Burst))
	}
	if !e.Expires.IsZero() {
		b = binary.AppendVarint(b, e.Expires.Unix())
	}
	for _, s := range []string{e.Feed, e.Name, e.Note, e.By} {
		if s != "" {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
	}
	if !e.At.IsZero() {
		b = binary.AppendVarint(b, e.At.Unix())
		b = binary.AppendUvarint(b, uint64(e.At.Nanosecond()))
	}
	return b, nil
}

func (e Entry) parts() (parts uint16) {
	for bit, has := range []bool{
		len(e.Ports) > 0, e.MaxConns != nil, e.Rate != nil, e.Burst != nil, e.Shared, e.Relay, e.Immune, !e.Expires.IsZero(),
		e.Feed != "", e.Name != "", e.Note != "", e.By != "", !e.At.IsZero(),
	} {
		if has {
			parts |= 1 << bit
		}
	}
	return parts
}

// IsBinary says whether data begins like an entry in binary.
func IsBinary(data []byte) bool { return len(data) > 0 && data[0] == binaryForm }

// DecodeBinary reads an entry that AppendBinary has written, and returns what
// stands behind it. It does not validate.
func DecodeBinary(data []byte) (e Entry, rest []byte, err error) {
	r := reader{data: data}
	form, action, origin := r.byte(), int(r.byte()), int(r.byte())
	parts := uint16(r.byte())<<8 | uint16(r.byte())
	if r.bad || form != binaryForm || action >= len(actions()) || origin >= len(origins()) || parts >= hasAt<<1 {
		return Entry{}, nil, errBinary
	}
	e.Action, e.Origin = actions()[action], origins()[origin]
	addr, _ := netip.AddrFromSlice(r.bytes(int(r.byte())))
	e.Prefix = netip.PrefixFrom(addr, int(r.byte()))
	has := func(part uint16) bool { return parts&part != 0 && !r.bad }
	if has(hasPorts) {
		n := r.count(len(r.data) / 2)
		for range n {
			e.Ports = append(e.Ports, uint16(r.byte())<<8|uint16(r.byte()))
		}
	}
	if has(hasConns) {
		e.MaxConns = r.uint32()
	}
	if has(hasRate) {
		e.Rate = &Rate{N: *r.uint32(), Period: time.Duration(r.count(int(time.Hour)))}
	}
	if has(hasBurst) {
		e.Burst = r.uint32()
	}
	e.Shared, e.Relay, e.Immune = has(isShared), has(isRelay), has(isImmune)
	if has(hasExpiry) {
		e.Expires = time.Unix(r.varint(), 0).UTC()
	}
	for i, s := range []*string{&e.Feed, &e.Name, &e.Note, &e.By} {
		if has(hasFeed << i) {
			*s = string(r.bytes(r.count(len(r.data))))
		}
	}
	if has(hasAt) {
		sec := r.varint()
		e.At = time.Unix(sec, int64(r.count(int(time.Second)-1))).UTC()
	}
	if r.bad {
		return Entry{}, nil, errBinary
	}
	return e, r.data, nil
}

var errBinary = errors.New("not an entry in binary")

// reader takes values off the front of data, and remembers when there were none.
type reader struct {
	data []byte
	bad  bool
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.data) {
		r.bad, n = true, len(r.data)
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

// count is a number from 0 to most.
func (r *reader) count(most int) int {
	v, n := binary.Uvarint(r.data)
	if n <= 0 || v > uint64(most) {
		r.bad = true
		return 0
	}
	r.data = r.data[n:]
	return int(v)
}

func (r *reader) uint32() *uint32 {
	v := uint32(r.count(1<<32 - 1))
	return &v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.data)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.data = r.data[n:]
	return v
}
