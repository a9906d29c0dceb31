package main

import (
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

// contender is one way to deal with a flood, on a host of its own.
type contender struct {
	name     string
	prefixes int // that its policy allows; -1: it has no policy
	pair     *pair
	to       bool // the frames are for this host, not for another one on the wire
	from     sourceList
	load     time.Duration // until the policy answered
	memory   int64         // bytes that it took of the machine's, roughly
	reset    func() error  // forgets what a flood has left behind
}

// onHost makes a contender that is set up by fn.
func (b *bench) onHost(far *lab.Host, name string, prefixes int, fn func(p *pair)) *contender {
	b.progress("set up: %s", label(name, prefixes))
	b.pairs++
	c := &contender{name: name, prefixes: prefixes, pair: newPair(b.s, far, b.pairs), to: true}
	debug.FreeOSMemory()
	free, began := freeMemory(), time.Now()
	if fn != nil {
		fn(c.pair)
	}
	c.load = time.Since(began)
	debug.FreeOSMemory()
	c.memory = free - freeMemory()
	return c
}

// synward puts the filter on a host.
func (b *bench) synward(p *pair, set []prefix, l rule.Limits) {
	dir := filepath.Join(lab.BPFFS(b.s), "synward")
	f, err := loader.Open(loader.Options{PinDir: dir})
	b.s.check("open the filter", err)
	b.s.Cleanup(func() {
		_ = f.Close()
		_, _ = loader.Unload(dir)
	})
	_, err = f.Sync(makePolicy(set, l))
	b.s.check("load the policy", err)
	indexed, err := f.Indexed()
	b.s.check("build the index", err)
	if !indexed {
		b.s.Fatalf("the filter has no index for %d prefixes", len(set))
	}
	p.host.Do(func() error {
		_, err := f.Attach(p.device, loader.Native)
		return err
	})
}

const mailSYN = "tcp dport { 25, 465, 587 } tcp flags & (fin|syn|rst|ack) == syn"

// nftNetdev is nftables as early as it can be: at the device's ingress.
func nftNetdev(p *pair, set []prefix) {
	p.pipe(fmt.Sprintf(`table netdev f {
	set allowed { type ipv4_addr; flags interval; %s }
	chain in {
		type filter hook ingress device "%s" priority 0; policy accept;
		%s ip saddr != @allowed drop
	}
}
`, nftElements(set), p.device, mailSYN), "nft", "-f", "-")
}

// The rules of nftables that count connections per source, as its manual has
// them, and one that looks at the source first.
const (
	nftCount = `tcp dport 25 ct state new add @conns { ip saddr ct count over 100000 } drop`
	nftAllow = mailSYN + ` ip saddr != @allowed drop`
)

// nftInput is nftables with connection tracking, in the input hook.
func nftInput(p *pair, set []prefix, rules ...string) {
	p.pipe(fmt.Sprintf(`table inet f {
	set conns { type ipv4_addr; size 65535; flags dynamic; }
	set allowed { type ipv4_addr; flags interval; %s }
	chain in {
		type filter hook input priority 0; policy accept;
		%s
	}
}
`, nftElements(set), strings.Join(rules, "\n\t\t")), "nft", "-f", "-")
}

func nftElements(set []prefix) string {
	if len(set) == 0 {
		return ""
	}
	return "elements = { " + joinPrefixes(set, ",\n") + " }"
}

func joinPrefixes(set []prefix, sep string) string {
	var b strings.Builder
	b.Grow(20 * len(set))
	for i, p := range set {
		if i > 0 {
			b.WriteString(sep)
		}
		b.WriteString(p.netip().String())
	}
	return b.String()
}

// ipset is iptables as early as it can be, with the prefixes in a set.
func ipset(p *pair, set []prefix) {
	size := max(1024, len(set))
	in := fmt.Sprintf("create allowed hash:net maxelem %d hashsize %d\n", size, size)
	if len(set) > 0 {
		in += "add allowed " + joinPrefixes(set, "\nadd allowed ") + "\n"
	}
	p.pipe(in, "ipset", "restore")
	p.pipe("", "iptables", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "-m", "multiport", "--dports", "25,465,587",
		"--syn", "-m", "set", "!", "--match-set", "allowed", "src", "-j", "DROP")
}

// connlimit is iptables counting connections per source.
func connlimit(p *pair) {
	p.pipe("", "iptables", "-A", "INPUT", "-p", "tcp", "--syn", "--dport", "25",
		"-m", "connlimit", "--connlimit-above", "50", "-j", "DROP")
}
