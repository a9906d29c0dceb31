package quota

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// The kinds of line.
const (
	kindCount = 'c' // the sum of a slot from now on
	kindReset = 'r' // the key begins anew
	kindTold  = 't' // a refusal was told, and need not be again until at
)

// entry is one line: its CRC32 in hex, the kind, at, msgs, rcpts, and the key
// in quotes. The last line about a slot counts.
type entry struct {
	kind        byte
	key         string
	at          int64
	msgs, rcpts int
}

// line appends the entry to b.
func (e entry) line(b []byte) []byte {
	text := fmt.Appendf(nil, "%c %d %d %d %q", e.kind, e.at, e.msgs, e.rcpts, e.key)
	b = fmt.Appendf(b, "%08x ", crc32.ChecksumIEEE(text))
	return append(append(b, text...), '\n')
}

// parseLine reads a line with its end; one that was cut off is none.
func parseLine(line []byte) (e entry, ok bool) {
	text, ok := bytes.CutSuffix(line, []byte("\n"))
	if !ok || len(text) < 10 || text[8] != ' ' {
		return entry{}, false
	}
	sum, err := strconv.ParseUint(string(text[:8]), 16, 32)
	text = text[9:]
	if err != nil || uint32(sum) != crc32.ChecksumIEEE(text) {
		return entry{}, false
	}
	parts := strings.SplitN(string(text), " ", 5)
	if len(parts) != 5 || len(parts[0]) != 1 || !strings.Contains("crt", parts[0]) {
		return entry{}, false
	}
	e.kind = parts[0][0]
	e.at, err = strconv.ParseInt(parts[1], 10, 64)
	if err == nil {
		e.msgs, err = strconv.Atoi(parts[2])
	}
	if err == nil {
		e.rcpts, err = strconv.Atoi(parts[3])
	}
	if err == nil {
		e.key, err = strconv.Unquote(parts[4])
	}
	return e, err == nil && e.key != "" && e.msgs >= 0 && e.rcpts >= 0 && e.at >= 0 && e.at < 1<<48
}
