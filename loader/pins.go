package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// programPin is the program's name beside the maps' under DIR/filter.
const programPin = "program"

// pinDir is the directory on bpffs that holds the filter.
type pinDir string

func (d pinDir) filterDir() string            { return filepath.Join(string(d), "filter") }
func (d pinDir) linkDir() string              { return filepath.Join(string(d), "links") }
func (d pinDir) ledgerDir() string            { return filepath.Join(string(d), "ledger") }
func (d pinDir) egressDir() string            { return filepath.Join(string(d), "egress") }
func (d pinDir) stagingDir() string           { return d.filterDir() + "-new" }
func (d pinDir) ledgerPin(name string) string { return filepath.Join(d.ledgerDir(), name) }
func (d pinDir) object(name string) string    { return filepath.Join(d.filterDir(), name) }

func (d pinDir) loaded() bool {
	_, err := os.Stat(d.filterDir())
	return err == nil
}

// lock makes the directory where it is missing and takes it for this process
// alone, until the returned function is called or the process ends.
func (d pinDir) lock() (unlock func() error, err error) {
	if err := d.ensure(); err != nil {
		return nil, err
	}
	dir, err := os.Open(string(d))
	if err != nil {
		return nil, fmt.Errorf("open the pins: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w: stop it first", d, ErrBusy)
		}
		return nil, fmt.Errorf("lock %s: %w", d, err)
	}
	return dir.Close, nil
}

func (d pinDir) ensure() error {
	parent := filepath.Dir(string(d))
	var st unix.Statfs_t
	if err := unix.Statfs(parent, &st); err != nil {
		return fmt.Errorf("pin directory %s: %s: %w: mount a bpf filesystem there (mount -t bpf bpf /sys/fs/bpf)", d, parent, err)
	}
	if uint32(st.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("pin directory %s: %s is not on a bpf filesystem: mount one there (mount -t bpf bpf /sys/fs/bpf)", d, parent)
	}
	for _, dir := range []string{string(d), d.linkDir(), d.ledgerDir(), d.egressDir()} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make the pin directory: %w", err)
		}
	}
	return nil
}

// stage pins everything under another name, for commit or exchange to rename: the
// filter is there whole or not at all.
func (d pinDir) stage(prog *ebpf.Program, maps map[string]*ebpf.Map) error {
	staging := d.stagingDir()
	if err := os.RemoveAll(staging); err != nil { // a run that died here
		return fmt.Errorf("clear %s: %w", staging, err)
	}
	if err := os.Mkdir(staging, 0o700); err != nil {
		return fmt.Errorf("pin the filter: %w", err)
	}
	err := prog.Pin(filepath.Join(staging, programPin))
	for name, m := range maps {
		if err == nil {
			err = m.Pin(filepath.Join(staging, name))
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("pin the filter: %w", err), os.RemoveAll(staging))
	}
	return nil
}

// commit makes the staged filter the pinned one, where there is none.
func (d pinDir) commit() error {
	if err := os.Rename(d.stagingDir(), d.filterDir()); err != nil {
		return fmt.Errorf("pin the filter: %w", err)
	}
	return nil
}

// replaceProgram makes prog the pinned program of that name; the rename is the
// commit.
func (d pinDir) replaceProgram(prog *ebpf.Program, name string) error {
	if err := pinOver(prog, d.object(name)); err != nil {
		return fmt.Errorf("pin the new program: %w", err)
	}
	return nil
}

// pinOver pins a program or a link where another one may be: the name is never
// without one of the two.
func pinOver(p interface{ Pin(string) error }, pin string) error {
	next := pin + "-new"
	_ = os.Remove(next) // a run that died here
	if err := p.Pin(next); err != nil {
		return err
	}
	if err := os.Rename(next, pin); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return nil
}

// links names the pinned links, each by its interface's index.
func (d pinDir) links() ([]string, error) { return pinsIn(d.linkDir()) }

// egresses names what is pinned of the interfaces whose egress is watched.
func (d pinDir) egresses() ([]string, error) { return pinsIn(d.egressDir()) }

func pinsIn(dir string) ([]string, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the links: %w", err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names, nil
}

// removeAll removes all but the locked directory itself.
func (d pinDir) removeAll() (done bool) {
	done = d.loaded()
	for _, dir := range []string{d.filterDir(), d.stagingDir(), d.linkDir(), d.ledgerDir(), d.egressDir()} {
		_ = os.RemoveAll(dir)
	}
	return done
}
