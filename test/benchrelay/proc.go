package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// stat is a process as /proc/N/stat tells it.
type stat struct {
	pid, parent int
	cpu         time.Duration // its own and that of children that were waited for
}

const tick = 10 * time.Millisecond // USER_HZ is 100 everywhere on Linux

func readStat(path string) (stat, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return stat{}, err
	}
	end := bytes.LastIndexByte(b, ')') // the name may hold anything
	pid, _, _ := strings.Cut(string(b), " ")
	f := strings.Fields(string(b[end+1:]))
	if end < 0 || len(f) < 15 {
		return stat{}, fmt.Errorf("%s: cannot be read", path)
	}
	var s stat
	if s.pid, err = strconv.Atoi(pid); err != nil {
		return stat{}, err
	}
	if s.parent, err = strconv.Atoi(f[1]); err != nil {
		return stat{}, err
	}
	for _, v := range f[11:15] { // utime stime cutime cstime
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return stat{}, err
		}
		s.cpu += time.Duration(n) * tick
	}
	return s, nil
}

// tree returns a process and all that descend from it.
func tree(root int) ([]stat, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := map[int]stat{}
	for _, f := range files {
		if s, err := readStat(f); err == nil { // it may have ended meanwhile
			all[s.pid] = s
		}
	}
	if _, ok := all[root]; !ok {
		return nil, fmt.Errorf("process %d has ended", root)
	}
	var list []stat
	for _, s := range all {
		for p, ok := s, true; ok; p, ok = all[p.parent] {
			if p.pid == root {
				list = append(list, s)
				break
			}
		}
	}
	return list, nil
}

// cpu is what a server's processes have used so far. Those that have ended are
// counted by the one that waited for them.
func cpu(root int) (d time.Duration, err error) {
	list, err := tree(root)
	for _, s := range list {
		d += s.cpu
	}
	return d, err
}

// pss is the memory of a server's processes in KiB, with what they share
// counted once.
func pss(root int) (kib int64, err error) {
	list, err := tree(root)
	for _, s := range list {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.pid))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
				n, err := strconv.ParseInt(f[1], 10, 64)
				if err != nil {
					return 0, err
				}
				kib += n
			}
		}
	}
	return kib, err
}
