package main

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// wanted are the modules that the tests need, where the kernel has them not
// built in.
var wanted = []string{
	"virtio_pci", "virtio_net", "veth", "bridge", "dummy", "ifb", "bonding", "8021q",
	"sch_ingress", "cls_bpf", "inet_diag", "tcp_diag",
}

// kernel is one that fetch.sh has unpacked.
type kernel struct {
	series  string
	release string
	image   string
	modules string            // its folder
	files   map[string]string // by module name; "" = built in
}

func openKernel(dir, series string) (*kernel, error) {
	root := filepath.Join(dir, series)
	release, err := os.ReadFile(filepath.Join(root, "release"))
	if err != nil {
		return nil, fmt.Errorf("open kernel %s: %w: fetch it first (test/kernels/fetch.sh)", series, err)
	}
	k := &kernel{series: series, release: strings.TrimSpace(string(release)), files: map[string]string{}}
	if k.image, err = findOne(root, "boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz"); err != nil {
		return nil, err
	}
	if k.modules, err = findOne(root, "usr/lib/modules/*", "lib/modules/*"); err != nil {
		return nil, err
	}
	return k, k.index()
}

func findOne(root string, patterns ...string) (string, error) {
	for _, p := range patterns {
		if found, _ := filepath.Glob(filepath.Join(root, p)); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", fmt.Errorf("find %s in %s: not there", patterns[0], root)
}

// index notes where each module is. Only depmod, run on installing, would make
// the list that modprobe reads.
func (k *kernel) index() error {
	builtin, err := os.Open(filepath.Join(k.modules, "modules.builtin"))
	if err != nil {
		return fmt.Errorf("index modules: %w", err)
	}
	defer builtin.Close()
	for lines := bufio.NewScanner(builtin); lines.Scan(); {
		k.files[moduleName(lines.Text())] = ""
	}
	return filepath.WalkDir(k.modules, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(d.Name(), ".ko") {
			k.files[moduleName(path)] = path
		}
		return err
	})
}

func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// module is one that is ready to be loaded.
type module struct {
	name string
	data []byte
}

// load returns the modules in the order in which they can be loaded.
func (k *kernel) load(names []string) (out []module, err error) {
	for _, name := range names {
		if slices.ContainsFunc(out, func(m module) bool { return m.name == name }) {
			continue
		}
		path, ok := k.files[name]
		if !ok {
			return nil, fmt.Errorf("load module %s: kernel %s has none", name, k.release)
		}
		if path == "" {
			continue
		}
		data, err := readModule(path)
		if err != nil {
			return nil, err
		}
		needs, err := depends(data)
		if err != nil {
			return nil, fmt.Errorf("read module %s: %w", name, err)
		}
		before, err := k.load(needs)
		if err != nil {
			return nil, err
		}
		for _, m := range append(before, module{name, data}) {
			if !slices.ContainsFunc(out, func(o module) bool { return o.name == m.name }) {
				out = append(out, m)
			}
		}
	}
	return out, nil
}

func readModule(path string) ([]byte, error) {
	if strings.HasSuffix(path, ".xz") {
		data, err := exec.Command("xz", "-dc", path).Output()
		if err != nil {
			return nil, fmt.Errorf("unpack module %s: %w", path, err)
		}
		return data, nil
	}
	return os.ReadFile(path)
}

// depends reads what a module says of itself.
func depends(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for _, field := range strings.Split(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(strings.ReplaceAll(list, "-", "_"), ","), nil
		}
	}
	return nil, nil
}
