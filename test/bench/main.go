// Command bench measures the filter's datapath beside what else Linux has for
// the purpose, all in one run: what a stranger's SYN costs, at policies from
// none to a million prefixes, and how many real SMTP connections get through a
// flood of them. Run it by make bench, as root: it makes network namespaces,
// sends live frames out of a test run of XDP, and removes everything again.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/synward/synward/test/lab"
)

type options struct {
	rounds  int
	slice   time.Duration
	goodput int
	span    time.Duration
	quick   bool
	ours    bool
	json    string
	svg     string
	write   bool
}

// bench is one run.
type bench struct {
	o        options
	s        *stage
	gen      *generator
	self     string // this program
	hostCPU  int    // of the protected host, when its goodput is measured
	genCPU   int
	softirqd int // the generator's CPU's thread for softirqs
	pairs    int
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 9, "rounds in which each packet's cost is measured")
	flag.DurationVar(&o.slice, "slice", 150*time.Millisecond, "length of one such measurement")
	flag.IntVar(&o.goodput, "goodput", 5, "rounds in which connections are counted")
	flag.DurationVar(&o.span, "span", 2*time.Second, "length of one such count")
	flag.BoolVar(&o.quick, "quick", false, "short: 3 rounds of packets, 1 of connections")
	flag.BoolVar(&o.ours, "ours", false, "packets through synward alone, without the others")
	flag.StringVar(&o.json, "json", "", "file for the numbers")
	flag.StringVar(&o.svg, "svg", "", "file for a plot")
	flag.BoolVar(&o.write, "write", false, "write docs/performance.json and docs/performance.svg, and the table in docs/performance.md")
	as := flag.String("as", "", "used by the program itself: server or client")
	span := flag.Duration("for", 0, "used by the program itself: how long the client runs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch *as {
	case "server":
		goAhead()
		err = serveSMTP()
	case "client":
		goAhead()
		err = clientRun(*span)
	default:
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("root is needed, to make network namespaces and to load the filter: sudo make bench")
	}
	if runtime.NumCPU() < 2 {
		return fmt.Errorf("two CPUs are needed, one for the flood and one for the host that it meets")
	}
	if o.quick {
		o.rounds, o.goodput = min(3, o.rounds), min(1, o.goodput)
	}
	if o.ours {
		o.goodput = 0
	}
	if o.write {
		o.json, o.svg = "docs/performance.json", "docs/performance.svg"
	}
	b := &bench{o: o, s: &stage{ctx: ctx}, hostCPU: 0, genCPU: 1}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.softirqd, err = softirqThread(b.genCPU); err != nil {
		return err
	}
	r := newReport(o)
	if err := b.play(r); err != nil {
		return err
	}
	fmt.Print(r.table())
	return r.write(o)
}

// play measures packets and then connections, each on a stage of its own: the
// programs that count connections see every filter's.
func (b *bench) play(r *report) (err error) {
	defer lab.Catch(&err)
	b.progress("make prefixes")
	sets := map[int][]prefix{}
	for _, n := range sizes {
		sets[n] = randomPrefixes(n)
	}
	top := sets[sizes[len(sizes)-1]]
	outside := strangers(listLen, sets[1_000], sets[100_000], top)
	house := b.s
	defer house.Strike()
	b.gen, err = newGenerator(house, outside,
		allowed(listLen, top), allowed(listLen, some(1_000, top)), repeat(listLen, allowed(1_000, top)))
	if err != nil {
		return err
	}
	if b.o.rounds > 0 {
		b.on(house, func() { b.packets(r, sets) })
	}
	if b.o.goodput > 0 {
		b.on(house, func() { r.addGoodput(b.goodput(b.players(sets[goodputPrefixes]))) })
	}
	return nil
}

func (b *bench) packets(r *report, sets map[int][]prefix) {
	far := lab.NewHost(b.s, "benchfar")
	list := b.contenders(far, sets)
	r.addPackets(list, b.rounds(far, list))
}

// on plays on a stage of its own, which is struck also when the act fails.
func (b *bench) on(house *stage, act func()) {
	b.s = &stage{ctx: house.ctx}
	defer func() {
		b.progress("take down")
		b.s.Strike()
		b.s = house
	}()
	act()
}

func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

// replaceFile writes a file that is there whole or not at all.
func replaceFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
