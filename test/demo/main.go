// Command demo shows synward at work on hosts made of network namespaces: a
// stranger's SYN dies at the network card while an allowed client submits a
// mail that arrives at the next hop. It ends with status 0 only if every step
// did what it should. Run it with `make demo`; it needs root.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/synward/synward/test/stage"
)

func main() {
	hold := flag.Bool("hold", false, "keep the hosts up until Ctrl-C")
	flag.Parse()
	os.Exit(run(*hold))
}

func run(hold bool) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "demo: root is needed, to make network namespaces and to load the filter: sudo make demo")
		return 1
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	s := &show{out: os.Stdout, colour: colourful(os.Stdout)}
	defer s.strike()
	if err := s.play(filepath.Dir(self)); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	if hold {
		s.hold(ctx)
	}
	return s.verdict()
}

// hold keeps everything up for a person to play with.
func (s *show) hold(ctx context.Context) {
	st := s.stage
	fmt.Fprintf(s.out, `
The hosts stay up. From another terminal, as root:

  alias sw='nsenter --net=/run/netns/%[1]s %[2]s --config %[3]s'
  sw status
  sw events --follow
  sw allow add %[5]s --note "the stranger, for once"
  sw explain %[5]s
  nsenter --net=/run/netns/%[4]s nc -v %[6]s 25      # knock as the stranger

Ctrl-C takes everything down.
`, st.Edge.Name, filepath.Join(s.bin, "synward"), st.Config(), st.Stranger.Name, stage.StrangerAddr, stage.EdgeForStranger)
	<-ctx.Done()
}
