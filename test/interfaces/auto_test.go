package interfaces

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/synward/synward/loader"
)

// "auto" waits for a default route, and a route that goes opens no door.
func TestAutoFollowsTheDefaultRoute(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	p0, p1 := e.connect("eth0", net1), e.connect("eth1", net2)
	e.Listen(":25")
	e.start(loader.Auto, "auto")
	if got := e.problems("no default route", "protects nothing"); len(got) != 1 || e.shown("auto").Name == "" {
		t.Errorf("status says of the missing route: %q", got)
	}
	if !e.reached(p0, net1) {
		t.Error("filtered without a route, and without a word")
	}
	route := func(name, gateway string, do func(*netlink.Route) error) {
		onLink(e.Host, name, func(l netlink.Link) error {
			return do(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gateway)})
		})
	}
	route("eth0", net1+".2", netlink.RouteAdd)
	e.attached("eth0", loader.Native)
	e.guarded(p0, net1)
	e.eventually("status has nothing against it", func() bool { return len(e.problems("no default route")) == 0 && e.shown("auto").Name == "" })

	route("eth0", net1+".2", netlink.RouteDel)
	e.eventually("status says that the route is gone", func() bool { return len(e.problems("no default route", "stays")) == 1 })
	e.guarded(p0, net1)
	route("eth1", net2+".2", netlink.RouteAdd)
	e.attached("eth1", loader.Native)
	e.guarded(p1, net2)
	e.guarded(p0, net1)
}
