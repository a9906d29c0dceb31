// Command benchpolicy measures the agent with a large policy: how long each
// command takes from its start to its end, when what it says is in force; what
// the agent's other work and the packets wait meanwhile; and the memory. Run it
// by make bench-policy, as root: it makes network namespaces and a filter of
// its own, and removes everything again.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	sizes := flag.String("sizes", "1000,100000,1000000", "how many prefixes, one run for each")
	write := flag.Bool("write", false, "write the table into docs/performance.md")
	bin := flag.String("synward", "build/synward", "the program")
	verbose := flag.Bool("v", false, "say what each command took as it ends")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *sizes, *write, *verbose); err != nil {
		fmt.Fprintf(os.Stderr, "benchpolicy: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, sizes string, write, verbose bool) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("root is needed, to make network namespaces and to load the filter: sudo make bench-policy")
	}
	var all []*result
	for _, s := range strings.Split(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("-sizes: %q is not a number of prefixes", s)
		}
		r, err := measure(ctx, bin, n, verbose)
		if err != nil {
			return fmt.Errorf("%d prefixes: %w", n, err)
		}
		all = append(all, r)
	}
	text := table(all)
	fmt.Print(text)
	if write {
		return writeDoc("docs/performance.md", text)
	}
	return nil
}
