package main

import (
	"fmt"
	"io"
	"path"
)

// cpioWriter writes an initramfs in the "newc" form, as the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst has it.
type cpioWriter struct {
	w     io.Writer
	inode int
	made  map[string]bool
	err   error
}

const (
	modeDir  = 0o040755
	modeFile = 0o100755
)

func newCPIO(w io.Writer) *cpioWriter {
	return &cpioWriter{w: w, made: map[string]bool{".": true}}
}

// file adds a file, and the folders that lead to it. The first error is kept
// for close.
func (c *cpioWriter) file(name string, data []byte) {
	c.dir(path.Dir(name))
	c.record(name, modeFile, data)
}

func (c *cpioWriter) dir(name string) {
	if c.made[name] {
		return
	}
	c.dir(path.Dir(name))
	c.made[name] = true
	c.record(name, modeDir, nil)
}

func (c *cpioWriter) close() error {
	c.record("TRAILER!!!", 0, nil)
	return c.err
}

func (c *cpioWriter) record(name string, mode int, data []byte) {
	c.inode++
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	c.padded([]byte(head))
	c.padded(data)
}

func (c *cpioWriter) padded(b []byte) {
	for _, part := range [][]byte{b, make([]byte, -len(b)&3)} {
		if c.err == nil {
			_, c.err = c.w.Write(part)
		}
	}
}
