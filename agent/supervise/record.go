package supervise

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// record is what an agent leaves behind about the child it has started.
type record struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot: with the PID, one process for ever
	Print string `json:"print"` // fingerprint of how it was started
}

func recordPath(socket string) string { return socket + ".json" }

// readRecord reads the record of a child that still runs; ok is false where
// there is none.
func readRecord(socket string) (r record, ok bool) {
	b, err := os.ReadFile(recordPath(socket))
	if err != nil || json.Unmarshal(b, &r) != nil || r.PID <= 1 {
		return record{}, false
	}
	start, err := startTime(r.PID)
	return r, err == nil && start == r.Start
}

// writeRecord replaces the record in one step.
func writeRecord(socket string, r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := recordPath(socket) + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write record of child: %w", err)
	}
	return os.Rename(tmp, recordPath(socket))
}

// startTime is when a process started, in clock ticks since boot. A zombie
// counts as gone.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything; fields count from after it.
	i := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[i+1:])
	if i < 0 || len(fields) < 20 {
		return 0, fmt.Errorf("read start of process %d: odd stat line", pid)
	}
	if fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// fingerprint is of everything that a child has from its start and no PUT can
// change: the binary's very file, user, environment and addresses.
func fingerprint(o Options, uid, gid uint32) (string, error) {
	fi, err := os.Stat(o.Command)
	if err != nil {
		return "", fmt.Errorf("find the relay's binary: %w", err)
	}
	st, _ := fi.Sys().(*syscall.Stat_t)
	if st == nil {
		return "", fmt.Errorf("find the relay's binary: no inode for %s", o.Command)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d %d %d %d\n", st.Dev, st.Ino, fi.Size(), fi.ModTime().UnixNano())
	fmt.Fprintf(h, "%d %d %q %q %v\n", uid, gid, o.Args, o.Env, o.Listeners)
	return hex.EncodeToString(h.Sum(nil)), nil
}
