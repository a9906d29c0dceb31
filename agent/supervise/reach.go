package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// reachable says whether a user may execute a program: every directory on the
// way to it must let him through. Told before the start, it is an answer; told
// by a failing exec, a riddle.
func reachable(path, name string, uid, gid uint32) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("find the relay's program: %w", err)
	}
	for p := path; ; p = filepath.Dir(p) {
		fi, err := os.Stat(p)
		if err != nil {
			return fmt.Errorf("find the relay's program: %w", err)
		}
		if !mayExecute(fi, uid, gid) {
			return fmt.Errorf("relay.user: %s may not execute %s (see the mode of %s); install it where everybody may, such as /usr/local/bin", name, path, p)
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}

func mayExecute(fi os.FileInfo, uid, gid uint32) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	perm := fi.Mode().Perm()
	switch {
	case st.Uid == uid:
		return perm&0o100 != 0
	case st.Gid == gid:
		return perm&0o010 != 0
	}
	return perm&0o001 != 0
}
