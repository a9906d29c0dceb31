package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/test/lab"
)

// loads are the floods under which connections are counted, in SYNs a second.
var loads = []int{0, 300_000, 1_000_000}

// goodputPrefixes is the size of the policies that the goodput is measured with.
const goodputPrefixes = 100_000

// outcome is what a client saw in one run.
type outcome struct {
	Connections int     `json:"connections"` // from SYN to the end of QUIT
	Rate        float64 `json:"per_second"`
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	Flood       float64 `json:"flood_per_second"` // SYNs that the generator sent
}

// players sets up what the goodput is measured with: a client's host and a
// protected one for each, since all have the same addresses.
func (b *bench) players(set []prefix) []*contender {
	set = sorted(append(slices.Clone(set), prefix{0xc6120002, 32})) // the client
	play := func(name string, prefixes int, fn func(p *pair)) *contender {
		far := lab.NewHost(b.s, "benchfar")
		c := b.onHost(far, name, prefixes, fn)
		far.Address(fmt.Sprintf("wire%d", b.pairs), client.String()+"/15")
		c.reset = func() error { return nil }
		b.serve(c)
		return c
	}
	forget := func(c *contender) *contender {
		c.reset = func() error {
			return c.pair.host.Try(func() error {
				_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4)
				return err
			})
		}
		return c
	}
	n := goodputPrefixes
	return []*contender{
		play(nameIdeal, -1, func(p *pair) { p.attach(b.gen.Ideal) }),
		play(nameSynward, n, func(p *pair) { b.synward(p, set, clientLimits) }),
		play(nameNetdev, n, func(p *pair) { nftNetdev(p, set) }),
		forget(play(nameCount, n, func(p *pair) { nftInput(p, set, nftCount, nftAllow) })),
		forget(play(nameAllowOnly, n, func(p *pair) { nftInput(p, set, nftAllow, nftCount) })),
		play(nameOpen, -1, nil),
	}
}

const (
	nameIdeal = "bare XDP_DROP of all but the client"
	nameOpen  = "no filter, open port"
)

// serve starts the server on a contender's host.
func (b *bench) serve(c *contender) {
	ctx, stop := context.WithCancel(b.s.ctx)
	cmd := b.actor(ctx, c.pair.host, "-as", "server")
	out, err := cmd.StdoutPipe()
	b.s.check("start the server", err)
	b.s.check("start the server", cmd.Start())
	b.s.Cleanup(func() { stop(); _ = cmd.Wait() })
	_, err = io.ReadFull(out, make([]byte, 1)) // it listens
	b.s.check("wait for the server", err)
}

// actor is this program in another role, on a host and on the protected host's
// CPU, ahead of what else the machine does there: in a session of its own, since
// niceness counts only within one (sched(7), autogroups).
func (b *bench) actor(ctx context.Context, h *lab.Host, args ...string) *exec.Cmd {
	cmd := h.Command(ctx, "nice", append([]string{"-n", niceness, "taskset", "-c", strconv.Itoa(b.hostCPU), b.self}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stderr = os.Stderr
	return cmd
}

const niceness = "-15"

// goFirst lets a thread (0: this one) run before every ordinary one: a wire does
// not wait.
func goFirst(tid int) error {
	return unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
}

// keepPace lets the flood have its CPU to the last per cent. The kernel gives one in
// twenty to ordinary threads that wait for it, and ksoftirqd does where a filter is
// slow: in that gap no SYN is sent, and connections come through that a flood
// would have stopped.
func (b *bench) keepPace() {
	const reserve = "/proc/sys/kernel/sched_rt_runtime_us" // for all; since Linux 6.12 a server for each CPU
	was, err := os.ReadFile(reserve)
	b.s.check("read the reserve of ordinary threads", err)
	b.s.Cleanup(func() {
		_ = os.WriteFile(reserve, was, 0)
		_ = unix.SchedSetAttr(b.softirqd, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0)
	})
	b.s.check("give up the reserve of ordinary threads", os.WriteFile(reserve, []byte("-1"), 0))
	b.s.check("put ksoftirqd in the flood's class", goFirst(b.softirqd))
}

// goAhead makes that session count; without autogroups it need not.
func goAhead() { _ = os.WriteFile("/proc/self/autogroup", []byte(niceness), 0) }

// cell is one contender under one load.
type cell struct {
	c    *contender
	load int
}

// goodput counts the connections of a client under each load, in turns.
func (b *bench) goodput(players []*contender) map[cell][]outcome {
	var cells []cell
	for _, c := range players {
		for _, load := range loads {
			cells = append(cells, cell{c, load})
		}
	}
	b.keepPace()
	got := map[cell][]outcome{}
	for round := range b.o.goodput {
		rand.Shuffle(len(cells), func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
		for _, at := range cells {
			b.progress("goodput: round %d of %d: %s, %d SYNs/s", round+1, b.o.goodput, at.c.name, at.load)
			b.s.check("forget the last flood", at.c.reset())
			o, err := b.connect(at)
			b.s.check("goodput of "+at.c.name, err)
			got[at] = append(got[at], o)
		}
	}
	return got
}

// settle is how long a flood goes on before connections are counted: the smaller
// one fills the kernel's table of connections (262,144) in this time.
const settle = 1500 * time.Millisecond

// connect runs the client under a load.
func (b *bench) connect(at cell) (o outcome, err error) {
	ctx, stop := context.WithCancel(b.s.ctx)
	defer stop()
	flooding := make(chan error, 1)
	if at.load > 0 {
		go func() { flooding <- b.flood(ctx, at) }()
		time.Sleep(settle)
	} else {
		flooding <- nil
	}
	began := time.Now()
	var sent, now uint64
	if err := b.gen.Sent.Get(&sent); err != nil {
		return o, err
	}
	out, err := b.actor(b.s.ctx, at.c.pair.far, "-as", "client", "-for", b.o.span.String()).Output()
	took := time.Since(began)
	errSent := b.gen.Sent.Get(&now)
	stop()
	if err := errors.Join(err, errSent, <-flooding); err != nil {
		return o, err
	}
	if err := json.Unmarshal(out, &o); err != nil {
		return o, fmt.Errorf("read the client's answer: %w", err)
	}
	o.Flood = float64(now-sent) / took.Seconds()
	return o, nil
}

// flood sends from the other CPU, which receives it as well: as where a NIC's
// queue has its interrupt there.
func (b *bench) flood(ctx context.Context, at cell) error {
	return at.c.pair.far.Try(func() error {
		if err := errors.Join(pinTo(0, b.genCPU), goFirst(0)); err != nil {
			return err
		}
		return b.gen.pace(ctx, flood{ifindex: at.c.pair.outIdx, to: serverMAC, rate: at.load})
	})
}
