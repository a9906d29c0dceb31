package main

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synward/synward/test/lab"
)

// The contenders whose names the report knows.
const (
	nameAlone     = "generator alone"
	nameDrop      = "bare XDP_DROP"
	nameSynward   = "synward"
	nameAllowed   = "synward, allowed SYN, caps and rate, any source in 1M prefixes"
	namePartner   = "synward, allowed SYN, caps and rate, any source in 1k prefixes"
	nameHost      = "synward, allowed SYN, caps and rate, 1k sources"
	namePass      = "XDP_PASS, frame for another host"
	nameOther     = "synward, allowed SYN for another host"
	nameKnown     = "synward, a partner's SYN for another host"
	nameSteady    = "synward, one of 1k allowed sources' SYN for another host"
	nameNetdev    = "nftables netdev ingress, interval set"
	nameCount     = "nftables input, ct count per source"
	nameAllowOnly = "nftables input, interval set, then ct count"
	nameIpset     = "iptables raw, ipset hash:net"
	nameConnlimit = "iptables input, connlimit per source"
	nameNone      = "no filter, closed port"
)

var sizes = []int{0, 1_000, 100_000, 1_000_000}

// contenders sets up everything whose cost per packet is measured.
func (b *bench) contenders(far *lab.Host, sets map[int][]prefix) []*contender {
	b.pairs = 0
	top := sets[sizes[len(sizes)-1]]
	other := func(from sourceList, c *contender) *contender {
		c.to, c.from = false, from
		return c
	}
	list := []*contender{
		{name: nameAlone, prefixes: -1},
		b.onHost(far, nameDrop, -1, func(p *pair) { p.attach(b.gen.Drop) }),
		other(fromAllowed, b.onHost(far, namePass, -1, func(p *pair) { p.attach(b.gen.Pass) })),
	}
	for _, n := range sizes {
		list = append(list, b.onHost(far, nameSynward, n, func(p *pair) { b.synward(p, sets[n], partnerLimits) }))
	}
	// The same filter and host as the stranger's, asked about allowed sources.
	for _, c := range list {
		if c.name == nameSynward && c.prefixes == len(top) {
			list = append(list,
				other(fromAllowed, &contender{name: nameOther, prefixes: c.prefixes, pair: c.pair}),
				other(fromPartners, &contender{name: nameKnown, prefixes: c.prefixes, pair: c.pair}),
				other(fromHosts, &contender{name: nameSteady, prefixes: c.prefixes, pair: c.pair}))
		}
	}
	if b.o.ours {
		return list
	}
	list = append(list,
		b.onHost(far, nameNone, -1, nil),
		b.onHost(far, nameCount, -1, func(p *pair) { nftInput(p, nil, nftCount) }),
		b.onHost(far, nameConnlimit, -1, connlimit),
		b.onHost(far, nameAllowOnly, 100_000, func(p *pair) { nftInput(p, sets[100_000], nftAllow, nftCount) }))
	for _, n := range sizes {
		list = append(list,
			b.onHost(far, nameNetdev, n, func(p *pair) { nftNetdev(p, sets[n]) }),
			b.onHost(far, nameIpset, n, func(p *pair) { ipset(p, sets[n]) }))
	}
	return list
}

// rounds measures all contenders in turns, each round in another order.
func (b *bench) rounds(far *lab.Host, list []*contender) map[*contender][]float64 {
	costs := map[*contender][]float64{}
	frames := map[*contender]int{}
	for _, c := range list { // also warms it up
		cost := b.measure(far, c, 50_000)
		frames[c] = int(max(50_000, min(4e6, float64(b.o.slice.Nanoseconds())/cost)))
	}
	for round := range b.o.rounds {
		b.progress("packets: round %d of %d", round+1, b.o.rounds)
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for _, c := range list {
			costs[c] = append(costs[c], b.measure(far, c, frames[c]))
		}
	}
	return costs
}

// tries is how often a measurement is taken again whose frames did not all
// arrive, as where the softirq thread had to wait for others on its CPU.
const tries = 8

// measure is what one frame costs, in nanoseconds of CPU time.
func (b *bench) measure(far *lab.Host, c *contender, frames int) float64 {
	f := flood{to: nobodyMAC, from: c.from}
	if c.pair != nil {
		f.ifindex = c.pair.outIdx
	}
	if c.to {
		f.to = serverMAC
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	got := uint64(0)
	for range tries {
		b.s.check("measure "+c.name, nil)
		before := c.received(b)
		spent := b.spend(far, f, frames)
		got = c.received(b) - before
		if c.pair == nil || float64(got) >= 0.98*float64(frames) {
			return float64(spent) / float64(frames)
		}
	}
	b.s.Fatalf("%s: the device took %d of %d frames, the last of %d times", label(c.name, c.prefixes), got, frames, tries)
	return 0
}

// spend sends frames and says what CPU time that took: of the thread which sends,
// in whose calls the frames are received as well, and of the CPU's softirq thread
// where it had to help. Others on the machine do not count.
func (b *bench) spend(far *lab.Host, f flood, frames int) (spent time.Duration) {
	far.Do(func() error {
		if err := pinTo(0, b.genCPU); err != nil {
			return err
		}
		began, err := cpuTime(b.softirqd)
		if err != nil {
			return err
		}
		if err := b.gen.run(f, frames); err != nil {
			return err
		}
		ended, err := cpuTime(b.softirqd)
		spent = ended - began
		return err
	})
	return spent
}

// received is how many frames the contender's device has taken.
func (c *contender) received(b *bench) (n uint64) {
	if c.pair == nil {
		return 0
	}
	c.pair.host.Do(func() error {
		l, err := netlink.LinkByIndex(c.pair.devIdx)
		if err == nil {
			n = l.Attrs().Statistics.RxPackets
		}
		return err
	})
	return n
}

// cpuTime is that of this thread and of another one.
func cpuTime(other int) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0, err
	}
	ran, err := threadTime(other)
	return time.Duration(ts.Nano()) + ran, err
}

// threadTime is the CPU time that a thread has had.
func threadTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		return 0, err
	}
	ran, err := strconv.ParseInt(string(bytes.Fields(stat)[0]), 10, 64)
	return time.Duration(ran), err
}

// softirqThread is the kernel's thread that runs a CPU's softirqs when they are
// too many.
func softirqThread(cpu int) (int, error) {
	pids, err := threadsNamed(fmt.Sprintf("ksoftirqd/%d\n", cpu))
	if err != nil || len(pids) != 1 {
		return 0, fmt.Errorf("find ksoftirqd/%d: %d of them, %v", cpu, len(pids), err)
	}
	return pids[0], nil
}

// freeMemory is the machine's, in bytes; 0 where it cannot be known.
func freeMemory() int64 {
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var kib int64
		if _, err := fmt.Sscanf(lines.Text(), "MemAvailable: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}
