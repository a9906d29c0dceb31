package loader

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// keepLedger sees that the programs which count connections are attached and
// that the sweeper runs this build's code. Where one was missing, connections
// may have opened or closed unseen: the count begins anew.
func (f *Filter) keepLedger() error {
	if err := f.arm(); err != nil {
		return err
	}
	missing, err := f.attachLedger()
	if err != nil {
		return errors.Join(err, f.dropLedger())
	}
	if err := f.settleLedger(); err != nil {
		return err
	}
	if missing {
		return f.forgetCounts()
	}
	return nil
}

// arm points the sweeper's timer to this build's code.
func (f *Filter) arm() error {
	frame := make([]byte, 64) // a test run takes no less than a header
	for range 10 {
		ret, err := f.ledger.Arm.Run(&ebpf.RunOptions{Data: frame})
		if err != nil {
			return fmt.Errorf("start the sweeper: %w", err)
		}
		if ret == 0 {
			return nil
		}
	}
	return errors.New("start the sweeper: the kernel has no memory for its timer")
}

// ledgerLinks are the links by the name of their pins.
func (f *Filter) ledgerLinks() map[string]func() (link.Link, error) {
	links := map[string]func() (link.Link, error){
		filterProgLedgerA: func() (link.Link, error) {
			return link.AttachTracing(link.TracingOptions{Program: f.ledger.LedgerA})
		},
		filterProgLedgerB: func() (link.Link, error) {
			return link.AttachTracing(link.TracingOptions{Program: f.ledger.LedgerB})
		},
	}
	if root, err := cgroupRoot(); err == nil {
		links[filterProgLedger] = func() (link.Link, error) {
			return link.AttachCgroup(link.CgroupOptions{Path: root, Attach: ebpf.AttachCGroupSockOps, Program: f.ledger.Ledger})
		}
	} else {
		f.log.Warn("connections are counted by the tracepoint alone, and clients that vanish keep their slots until the server notices", "error", err)
	}
	return links
}

// attachLedger attaches this build's programs beside those that are pinned, and
// says whether any of these was missing: an account opens and closes once,
// whoever tells of it.
func (f *Filter) attachLedger() (missing bool, err error) {
	for name, attach := range f.ledgerLinks() {
		pin := f.dir.ledgerPin(name)
		if _, err := os.Stat(pin); err != nil {
			missing = true
		}
		l, err := attach()
		if err != nil {
			return missing, fmt.Errorf("attach the ledger's program %s: %w", name, err)
		}
		_ = os.Remove(pin + "-new") // a run that died here
		err = l.Pin(pin + "-new")
		l.Close()
		if err != nil {
			return missing, fmt.Errorf("pin the ledger's program %s: %w", name, err)
		}
	}
	return missing, nil
}

// settleLedger lets go of the programs that were there before attachLedger.
func (f *Filter) settleLedger() error {
	for name := range f.ledgerLinks() {
		if err := os.Rename(f.dir.ledgerPin(name)+"-new", f.dir.ledgerPin(name)); err != nil {
			return fmt.Errorf("pin the ledger's program %s: %w", name, err)
		}
	}
	return nil
}

// dropLedger takes back what attachLedger did.
func (f *Filter) dropLedger() error {
	var errs []error
	for name := range f.ledgerLinks() {
		if err := os.Remove(f.dir.ledgerPin(name) + "-new"); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("take the ledger's program %s off: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// forgetCounts starts a new epoch: what sockets hold of the old one is void.
func (f *Filter) forgetCounts() error {
	for half := range uint32(2) {
		cfg, err := f.config(half)
		if err != nil {
			return err
		}
		cfg.Epoch++
		if err := f.maps.Configs.Put(half, cfg); err != nil {
			return fmt.Errorf("begin the count anew: %w", err)
		}
	}
	// What holds a slot goes before the counts: else its end would take one off a
	// count that never knew it.
	return errors.Join(clearMap[filterFlow](f.maps.Tokens), clearMap[filterFlow](f.maps.Passages),
		clearMap[filterSource](f.maps.Usages), clearMap[uint32](f.maps.Egresses))
}

func clearMap[K any](m *ebpf.Map) error {
	var keys []K
	var key K
	value := make([]byte, m.ValueSize())
	it := m.Iterate()
	for it.Next(&key, &value) {
		keys = append(keys, key)
	}
	for _, k := range keys {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("begin the count anew: %w", err)
		}
	}
	return it.Err()
}

// countHere makes the sockets of this thread's network namespace those that
// count, and counts the connections that are open already. It comes before the
// filter's first packet.
func (f *Filter) countHere() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cookie, err := netnsCookie()
	if err != nil {
		return fmt.Errorf("identify the network namespace: %w", err)
	}
	for half := range uint32(2) {
		cfg, err := f.config(half)
		if err != nil {
			return err
		}
		if cfg.Netns == cookie {
			continue
		}
		cfg.Netns = cookie
		if err := f.maps.Configs.Put(half, cfg); err != nil {
			return fmt.Errorf("write the network namespace: %w", err)
		}
	}
	it, err := link.AttachIter(link.IterOptions{Program: f.ledger.Adopt})
	if err != nil {
		return fmt.Errorf("count open connections: %w", err)
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return fmt.Errorf("count open connections: %w", err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("count open connections: %w", err)
	}
	return nil
}

// netnsCookie is SO_NETNS_COOKIE (Linux 5.14) of this thread's namespace.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}

// cgroupRoot is where the root of the cgroup v2 hierarchy is mounted.
func cgroupRoot() (string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// proc_pid_mountinfo(5): id parent dev root mountpoint options… - type …
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if ok && len(fields) > 4 && fields[3] == "/" && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", errors.New("no cgroup2 filesystem is mounted")
}
