package queue

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// A record is a header of 40 octets, a payload, and zeroes up to a multiple of
// 8. The header has a checksum of its own, so that a damaged payload costs one
// item and not the way to the next:
//
//	0 magic  4 header's CRC32C  8 nonce  16 id  24 length  28 payload's CRC32C  32 kind  33 zeroes
const (
	headerSize = 40
	recordStep = 8
)

type kind uint8

// The kinds of record; append only.
const (
	kindMessage kind = 1 // meta, state and body of an item; a later one replaces an earlier
	kindUpdate  kind = 2 // its state from now on
	kindRemove  kind = 3 // it is gone; payload says why
)

type header struct {
	nonce  uint64
	id     uint64
	length uint32
	sum    uint32
	kind   kind
}

func magic() [4]byte { return [4]byte{'s', 'W', 'q', 0xd1} }

// checksum is CRC32C, which the CPU computes. MakeTable returns one shared table.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// put writes the header to the first headerSize octets of b.
func (h header) put(b []byte) {
	m := magic()
	copy(b, m[:])
	binary.LittleEndian.PutUint64(b[8:], h.nonce)
	binary.LittleEndian.PutUint64(b[16:], h.id)
	binary.LittleEndian.PutUint32(b[24:], h.length)
	binary.LittleEndian.PutUint32(b[28:], h.sum)
	clear(b[32:headerSize])
	b[32] = byte(h.kind)
	binary.LittleEndian.PutUint32(b[4:], checksum(b[8:headerSize]))
}

// readHeader reads the header at the start of b, if it is whole and of this nonce.
func readHeader(b []byte, nonce uint64) (header, bool) {
	m := magic()
	if len(b) < headerSize || !bytes.Equal(b[:4], m[:]) {
		return header{}, false
	}
	if binary.LittleEndian.Uint32(b[4:]) != checksum(b[8:headerSize]) {
		return header{}, false
	}
	h := header{
		nonce:  binary.LittleEndian.Uint64(b[8:]),
		id:     binary.LittleEndian.Uint64(b[16:]),
		length: binary.LittleEndian.Uint32(b[24:]),
		sum:    binary.LittleEndian.Uint32(b[28:]),
		kind:   kind(b[32]),
	}
	return h, h.nonce == nonce && uint64(headerSize)+uint64(h.length) <= uint64(len(b))
}

// recordSize is what a record with such a payload takes in the log.
func recordSize(payload int) int {
	return (headerSize + payload + recordStep - 1) &^ (recordStep - 1)
}

// visitor is told what a scan finds.
type visitor interface {
	record(off int, h header, payload []byte, whole bool)
	damage(from, to int) // unreadable octets with a readable record behind them
}

// scan walks the records of one segment's content and returns where they end:
// what follows is unused, or a tail that was never acknowledged.
func scan(b []byte, nonce uint64, v visitor) (end int) {
	for off := 0; off+headerSize <= len(b); {
		h, ok := readHeader(b[off:], nonce)
		if !ok {
			next := resync(b, off+recordStep, nonce)
			if next < 0 {
				return off
			}
			v.damage(off, next)
			off = next
			continue
		}
		payload := b[off+headerSize : off+headerSize+int(h.length)]
		v.record(off, h, payload, checksum(payload) == h.sum)
		off += recordSize(int(h.length))
		end = off
	}
	return end
}

// resync finds the next readable header at or behind from, -1 for none.
func resync(b []byte, from int, nonce uint64) int {
	m := magic()
	for from+headerSize <= len(b) {
		i := bytes.Index(b[from:], m[:])
		if i < 0 {
			return -1
		}
		at := from + i
		if at%recordStep == 0 {
			if _, ok := readHeader(b[at:], nonce); ok {
				return at
			}
		}
		from = at + 1
	}
	return -1
}

// place says where a body is, when it does not follow its meta in the log.
type place struct {
	Pack uint64 `json:"pack"`
	Off  int64  `json:"off"`
	Len  int64  `json:"len"`
	Sum  uint32 `json:"sum"`
}

// state is all of an item that changes. Records hold it whole, so that the
// last one read is the truth.
type state struct {
	Attempts int       `json:"n,omitempty"`
	Next     time.Time `json:"next,omitzero"`
	Err      string    `json:"err,omitempty"`
	Done     []Result  `json:"done,omitempty"`
	Held     bool      `json:"held,omitempty"`
	Warned   bool      `json:"warned,omitempty"`
}

// meta is the first part of a message's payload: its length in 4 octets, then JSON.
type meta struct {
	Envelope
	Received time.Time `json:"received"`
	State    *state    `json:"state,omitempty"`
	Body     *place    `json:"body,omitempty"` // nil: the rest of the payload
}

// removal is the payload of kindRemove.
type removal struct {
	Why string `json:"why"`
}

// startMessage returns a buffer with room for the header, and the meta behind it.
func startMessage(m meta, room int) ([]byte, error) {
	j, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	b := make([]byte, headerSize+4, recordSize(4+len(j)+room))
	binary.LittleEndian.PutUint32(b[headerSize:], uint32(len(j)))
	return append(b, j...), nil
}

// parseMessage takes a message's payload apart.
func parseMessage(payload []byte) (m meta, body []byte, err error) {
	if len(payload) < 4 {
		return m, nil, errors.New("parse message: payload too short")
	}
	n := binary.LittleEndian.Uint32(payload)
	rest := payload[4:]
	if uint64(n) > uint64(len(rest)) {
		return m, nil, errors.New("parse message: meta longer than payload")
	}
	if err := json.Unmarshal(rest[:n], &m); err != nil {
		return m, nil, fmt.Errorf("parse message: %w", err)
	}
	if err := m.check(); err != nil {
		return m, nil, err
	}
	if m.State != nil {
		for _, r := range m.State.Done {
			if r.Rcpt < 0 || r.Rcpt >= len(m.Rcpts) {
				return m, nil, errors.New("parse message: result of no recipient")
			}
		}
	}
	return m, rest[n:], nil
}

// seal pads a record and fills in all of its header but the nonce.
func seal(b []byte, id uint64, k kind) []byte {
	n := len(b) - headerSize
	h := header{id: id, length: uint32(n), sum: checksum(b[headerSize:]), kind: k}
	for len(b) < recordSize(n) {
		b = append(b, 0)
	}
	h.put(b)
	return b
}

// stamp gives a sealed record the nonce of the segment that it goes to.
func stamp(b []byte, nonce uint64) {
	binary.LittleEndian.PutUint64(b[8:], nonce)
	binary.LittleEndian.PutUint32(b[4:], checksum(b[8:headerSize]))
}
