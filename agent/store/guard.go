package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"runtime/debug"
)

// corrupt wraps a cause into ErrCorrupt, with what to do.
func corrupt(cause error) error {
	return fmt.Errorf("%w (%w): move it away and restore a backup, or start afresh and apply the last good policy", ErrCorrupt, cause)
}

// guard runs fn and turns a panic into ErrCorrupt: bbolt panics, or touches
// memory behind a cut file, where pages are not what it has written. The
// agent must say so in one line and not die of it.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = corrupt(fmt.Errorf("%v", p))
		}
	}()
	return fn()
}

// sumLen is the length of the CRC32C in front of every value: bbolt checks its
// meta pages alone, and a flipped bit must not turn into another cap.
const sumLen = 4

func checksum(key, data []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli) // made once, by the package
	return crc32.Update(crc32.Checksum(key, table), table, data)
}

// seal puts the checksum of key and data in front of data.
func seal(key, data []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, sumLen+len(data)), checksum(key, data)), data...)
}

// unseal takes it off, or says that it does not fit.
func unseal(key, value []byte) ([]byte, error) {
	if len(value) < sumLen || binary.BigEndian.Uint32(value) != checksum(key, value[sumLen:]) {
		return nil, corrupt(fmt.Errorf("checksum of %q does not fit", key))
	}
	return value[sumLen:], nil
}
