package agent

import (
	"context"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
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

// wanted are the interfaces that the filter belongs on now.
func (c FilterConfig) wanted() (names, missing []string, err error) {
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
		if r.Dst != nil && (!r.Dst.IP.IsUnspecified() || ones(r.Dst) != 0) {
			continue
		}
		if r.Type != 0 && r.Type != 1 { // only unicast: no "unreachable default"
			continue
		}
		add(r.LinkIndex)
		for _, hop := range r.MultiPath {
			add(hop.LinkIndex)
		}
	}
	return out, nil
}

func ones(n *net.IPNet) int {
	o, _ := n.Mask.Size()
	return o
}

// missingInterfaces is the error for names that this host does not have.
func missingInterfaces(missing []string) error {
	if slices.Contains(missing, "auto") {
		return fmt.Errorf(`filter.interfaces: "auto" finds no default route on this host; name the interface instead`)
	}
	var have []string
	ifs, _ := net.Interfaces()
	for _, i := range ifs {
		have = append(have, i.Name)
	}
	return fmt.Errorf("filter.interfaces: no interface %s on this host; it has %s", strings.Join(missing, ", "), strings.Join(have, ", "))
}

// watchLinks calls changed whenever an interface or its XDP program may have
// changed, until the context ends. What it misses the reconcile timer finds.
func watchLinks(ctx context.Context, changed func()) error {
	updates := make(chan netlink.LinkUpdate, 64)
	done := make(chan struct{})
	failed := make(chan error, 1)
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) {
			select {
			case failed <- err:
			default:
			}
		},
	})
	if err != nil {
		return fmt.Errorf("subscribe to link changes: %w", err)
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
			return fmt.Errorf("receive link changes: %w", err)
		case _, ok := <-updates:
			if !ok {
				return fmt.Errorf("receive link changes: subscription ended")
			}
			changed()
		}
	}
}
