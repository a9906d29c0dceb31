package agent

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/synward/synward/agent/policy"
)

// packed is the first byte of what a change did in binary; the first versions
// wrote JSON, compressed, which begins otherwise.
const packed = 1

// pack writes what a change did, compressed: the entries in binary (what was
// added, what was removed, then pairs of what was and what is, each with its
// number in front), and the rest as JSON.
func pack(d done) ([]byte, error) {
	buf := bytes.NewBuffer([]byte{packed})
	z, err := gzip.NewWriterLevel(buf, gzip.BestSpeed)
	w := bufio.NewWriterSize(z, 64<<10) // keeps its error for Flush
	var b []byte
	put := func(e policy.Entry) {
		if err == nil {
			b, err = e.AppendBinary(b[:0])
			w.Write(b)
		}
	}
	count := func(n int) { w.Write(binary.AppendUvarint(nil, uint64(n))) }
	count(len(d.Added))
	for _, e := range d.Added {
		put(e)
	}
	count(len(d.Removed))
	for _, e := range d.Removed {
		put(e)
	}
	count(len(d.Changed))
	for _, c := range d.Changed {
		put(c.Old)
		put(c.New)
	}
	d.Changes = policy.Changes{}
	if err == nil {
		err = json.NewEncoder(w).Encode(d)
	}
	if err := errors.Join(err, w.Flush(), z.Close()); err != nil {
		return nil, fmt.Errorf("write history: %w", err)
	}
	return buf.Bytes(), nil
}

func unpack(data []byte) (d done, err error) {
	text := data
	if len(data) > 0 && data[0] == packed {
		text = data[1:]
	}
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err == nil {
		text, err = io.ReadAll(z)
	}
	var c *policy.Changes
	if err == nil && data[0] == packed {
		c, text, err = unpackEntries(text)
	}
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		return done{}, fmt.Errorf("read history: %w", err)
	}
	if c != nil {
		d.Changes = *c
	}
	return d, nil
}

// unpackEntries reads the entries that pack has written, and returns the rest.
func unpackEntries(data []byte) (c *policy.Changes, rest []byte, err error) {
	c = &policy.Changes{Added: []policy.Entry{}, Changed: []policy.Changed{}, Removed: []policy.Entry{}}
	each := func(fn func()) {
		n, width := binary.Uvarint(data)
		if width <= 0 {
			err = errors.Join(err, io.ErrUnexpectedEOF)
			return
		}
		for data = data[width:]; n > 0 && err == nil; n-- {
			fn()
		}
	}
	next := func() (e policy.Entry) {
		if err == nil {
			e, data, err = policy.DecodeBinary(data)
		}
		return e
	}
	each(func() { c.Added = append(c.Added, next()) })
	each(func() { c.Removed = append(c.Removed, next()) })
	each(func() { c.Changed = append(c.Changed, policy.Changed{Old: next(), New: next()}) })
	return c, data, err
}
