// Package sandbox gives up what the relay's process never needs: new
// privileges, files outside its spool, and the system calls that an intruder
// would reach for. It bends to the kernel: what that has not is left out and
// said so. It knows nothing of mail.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Report says what is in force, in words for an operator.
type Report struct {
	NoNewPrivs   bool   `json:"no_new_privs"`
	Landlock     string `json:"landlock"`     // "abi 6", or why not
	Seccomp      string `json:"seccomp"`      // "on", or why not
	Capabilities string `json:"capabilities"` // effective ones, hexadecimal; 0 is none
}

// ErrRoot is what Enter says to root: a sandbox that root sits in leaks.
var ErrRoot = errors.New("running as root: start it as a user of its own, as synward agent does")

// readable is what name resolution, TLS roots and time zones live in. Landlock
// ties a rule to the file that is there now: where resolv.conf is replaced by
// rename, the relay reads the new one after its next start. A symbolic link
// into /run (systemd-resolved, NetworkManager, resolvconf) has no such limit.
var readable = []string{
	"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/gai.conf",
	"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
	"/usr/share/zoneinfo", "/etc/localtime",
	"/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf",
	"/proc/sys/net", "/sys/fs/cgroup", "/sys/devices/system/cpu",
}

const (
	readDirs  = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir)
	readFiles = landlock.AccessFSSet(ll.AccessFSReadFile)
	ownDirs   = readDirs | landlock.AccessFSSet(ll.AccessFSWriteFile|ll.AccessFSTruncate|
		ll.AccessFSMakeReg|ll.AccessFSMakeDir|ll.AccessFSRemoveFile|ll.AccessFSRemoveDir)
	allFS = landlock.AccessFSSet(ll.AccessFSIoctlDev<<1 - 1)
)

// Enter shuts the whole process, all of its threads, in: it may write below
// spool and nowhere else. There is no way back. It fails for root, and where
// the kernel has a lock and does not let us close it.
func Enter(spool string) (Report, error) {
	if os.Geteuid() == 0 {
		return Report{}, ErrRoot
	}
	r := Report{Capabilities: capabilities()}
	var err error
	if r.Landlock, err = restrictFiles(spool); err != nil {
		return r, err
	}
	if r.Seccomp, err = restrictCalls(); err != nil {
		return r, err
	}
	nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	r.NoNewPrivs = err == nil && nnp == 1
	if !r.NoNewPrivs {
		return r, errors.New("set no_new_privs: the kernel did not")
	}
	return r, nil
}

// restrictFiles also denies to bind TCP ports, as all listeners are inherited,
// and to signal or reach abstract sockets of processes outside.
func restrictFiles(spool string) (string, error) {
	if err := ll.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return "", fmt.Errorf("set no_new_privs: %w", err)
	}
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return "not in this kernel", nil
	}
	cfg, err := landlock.NewConfig(allFS, landlock.AccessNetSet(ll.AccessNetBindTCP),
		landlock.ScopedSet(ll.ScopeAbstractUnixSocket|ll.ScopeSignal))
	if err != nil {
		return "", fmt.Errorf("enter landlock: %w", err)
	}
	rules := []landlock.Rule{
		landlock.PathAccess(ownDirs, spool),
		// The queue syncs the folder around the spool, and to open that one must
		// be allowed to list it. No file there becomes readable.
		landlock.PathAccess(landlock.AccessFSSet(ll.AccessFSReadDir), filepath.Dir(spool)),
	}
	for _, p := range readable {
		fi, err := os.Stat(p)
		switch {
		case err != nil: // not on this host
		case fi.IsDir():
			rules = append(rules, landlock.PathAccess(readDirs, p).IgnoreIfMissing())
		default:
			rules = append(rules, landlock.PathAccess(readFiles, p).IgnoreIfMissing())
		}
	}
	if err := cfg.BestEffort().Restrict(rules...); err != nil {
		return "", fmt.Errorf("enter landlock: %w", err)
	}
	return fmt.Sprintf("abi %d", abi), nil
}

// denied are the calls that mail never makes and an intruder would: loading
// programs into the kernel, debugging others, new namespaces and mounts, new
// programs, io_uring (which the filter cannot see into), and the machine itself.
var denied = []string{
	"bpf", "perf_event_open", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp",
	"execve", "execveat", "fork", "vfork",
	"mount", "umount2", "umount", "pivot_root", "chroot", "setns", "unshare", "fsopen", "fsconfig", "fsmount", "fspick",
	"move_mount", "open_tree", "mount_setattr", "open_by_handle_at", "name_to_handle_at",
	"io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd",
	"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff",
	"add_key", "request_key", "keyctl", "iopl", "ioperm", "modify_ldt", "acct", "quotactl", "quotactl_fd", "syslog",
	"settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname", "personality",
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid",
	"mknod", "mknodat", "vhangup", "nfsservctl", "lookup_dcookie", "fanotify_init", "memfd_secret",
}

// restrictCalls installs the filter in all threads.
func restrictCalls() (string, error) {
	if !seccomp.Supported() {
		return "not in this kernel", nil
	}
	info, err := arch.GetInfo("")
	if err != nil {
		return "not for this processor", nil
	}
	var names []string
	for _, n := range denied {
		if _, ok := info.SyscallNames[n]; ok {
			names = append(names, n)
		}
	}
	domain := func(d int) seccomp.Condition {
		return seccomp.Condition{Argument: 0, Operation: seccomp.NotEqual, Value: uint64(d)}
	}
	f := seccomp.Filter{
		NoNewPrivs: true, Flag: seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{
			{Action: seccomp.ActionErrno, Names: names},
			// Sockets of no family but these three: no netlink, no packets, no vsock.
			{Action: seccomp.ActionErrno, NamesWithCondtions: []seccomp.NameWithConditions{
				{Name: "socket", Conditions: seccomp.ArgumentConditions{domain(unix.AF_UNIX), domain(unix.AF_INET), domain(unix.AF_INET6)}},
			}},
		}},
	}
	if err := seccomp.LoadFilter(f); err != nil {
		return "", fmt.Errorf("enter seccomp: %w", err)
	}
	return "on", nil
}

// capabilities reads the effective ones of this process.
func capabilities() string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			if v = strings.TrimLeft(strings.TrimSpace(v), "0"); v == "" {
				v = "0"
			}
			return v
		}
	}
	return "unknown"
}
