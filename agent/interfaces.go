package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// pick says which of the host's interfaces the configured names and globs
// stand for. missing are plain names without an interface, and "auto" where
// auto is empty; a glob may match nothing today.
func pick(want, have []string, auto []string) (names, missing []string) {
	for _, w := range want {
		switch {
		case w == "auto":
			names = append(names, auto...)
			if len(auto) == 0 {
				missing = append(missing, w)
			}
		case strings.ContainsAny(w, `*?[\`):
			for _, h := range have {
				if ok, _ := path.Match(w, h); ok && h != "lo" {
					names = append(names, h)
				}
			}
		case slices.Contains(have, w):
			names = append(names, w)
		default:
			missing = append(missing, w)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), missing
}

// Wanted are the interfaces that the filter belongs on now. missing are names
// that this host has no interface for, and "auto" where it has no default route.
func (c FilterConfig) Wanted() (names, missing []string, err error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, nil, fmt.Errorf("list interfaces: %w", err)
	}
	var have []string
	for _, i := range ifs {
		have = append(have, i.Name)
	}
	var auto []string
	if slices.Contains(c.Interfaces, "auto") {
		if auto, err = defaultRoute(); err != nil {
			return nil, nil, err
		}
	}
	names, missing = pick(c.Interfaces, have, auto)
	return names, missing, nil
}

// defaultRoute names the interfaces of the default routes, IPv4 and IPv6.
func defaultRoute() ([]string, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []string
	add := func(index int) {
		if i, err := net.InterfaceByIndex(index); err == nil && i.Name != "lo" {
			out = append(out, i.Name)
		}
	}
	for _, r := range routes {
		if !isDefault(r) {
			continue
		}
		add(r.LinkIndex)
		for _, hop := range r.MultiPath {
			add(hop.LinkIndex)
		}
	}
	return out, nil
}

// isDefault says whether a route leads anywhere, and to an interface: "unreachable
// default" does not.
func isDefault(r netlink.Route) bool {
	all := r.Dst == nil || r.Dst.IP.IsUnspecified() && ones(r.Dst) == 0
	return all && (r.Type == unix.RTN_UNSPEC || r.Type == unix.RTN_UNICAST)
}

func ones(n *net.IPNet) int {
	o, _ := n.Mask.Size()
	return o
}

// namesExist refuses names that this host does not have. A default route may
// come later, as where the host gets its address late: "auto" waits for it.
func (c FilterConfig) namesExist() error {
	_, missing, err := c.Wanted()
	if err != nil {
		return err
	}
	return noSuchInterface(slices.DeleteFunc(missing, func(name string) bool { return name == "auto" }))
}

// noSuchInterface is the error for names that this host does not have.
func noSuchInterface(names []string) error {
	if len(names) == 0 {
		return nil
	}
	var have []string
	ifs, _ := net.Interfaces()
	for _, i := range ifs {
		have = append(have, i.Name)
	}
	return fmt.Errorf("filter.interfaces: no interface %s on this host; it has %s", strings.Join(names, ", "), strings.Join(have, ", "))
}

// missingInterfaces says what is wrong where Wanted has found something missing.
// attached: the filter is on an interface nevertheless.
func missingInterfaces(missing []string, attached bool) error {
	switch {
	case !slices.Contains(missing, "auto"):
		return noSuchInterface(missing)
	case attached:
		return errors.New(`filter.interfaces: "auto" finds no default route on this host; the filter stays where it is`)
	}
	return errors.New(`filter.interfaces: "auto" finds no default route on this host: the filter is on no interface and protects nothing; it waits for a route, or name the interface`)
}

// watchLinks calls changed whenever an interface or its XDP program may have
// changed, until the context ends. What it misses the reconcile timer finds.
func watchLinks(ctx context.Context, changed func()) error {
	return watch(ctx, func(netlink.LinkUpdate) { changed() }, func(to chan<- netlink.LinkUpdate, done <-chan struct{}, failed func(error)) error {
		return netlink.LinkSubscribeWithOptions(to, done, netlink.LinkSubscribeOptions{ErrorCallback: failed})
	})
}

// watchRoutes does so whenever a default route comes or goes.
func watchRoutes(ctx context.Context, changed func()) error {
	fn := func(u netlink.RouteUpdate) {
		if isDefault(u.Route) {
			changed()
		}
	}
	return watch(ctx, fn, func(to chan<- netlink.RouteUpdate, done <-chan struct{}, failed func(error)) error {
		return netlink.RouteSubscribeWithOptions(to, done, netlink.RouteSubscribeOptions{ErrorCallback: failed})
	})
}

// watch hands the updates of a subscription on until the context ends (nil).
func watch[T any](ctx context.Context, fn func(T), subscribe func(chan<- T, <-chan struct{}, func(error)) error) error {
	updates := make(chan T, 64)
	done := make(chan struct{})
	failed := make(chan error, 1)
	err := subscribe(updates, done, func(err error) {
		select {
		case failed <- err:
		default:
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to changes: %w", err)
	}
	defer func() {
		close(done)
		for range updates { // its sender must not hang on a full channel
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("receive changes: %w", err)
		case u, ok := <-updates:
			if !ok {
				return errors.New("receive changes: subscription ended")
			}
			fn(u)
		}
	}
}
