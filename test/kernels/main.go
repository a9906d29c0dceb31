// Command kernels boots other kernels in QEMU and runs the privileged tests on
// them. The initramfs holds nothing but the guest's own small init, static test
// binaries and the kernel's modules. `make test-kernels` builds all of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	var (
		dir     = flag.String("kernels", "build/kernels", "where fetch.sh has put the kernels; the logs land here too")
		bin     = flag.String("bin", "build/kernels-bin", "where guest and the test binaries are")
		run     = flag.String("run", "", "only these tests of the loader, and no others'")
		more    = flag.String("more", "", "more flags for the loader's tests: \"-test.count=10 -burst=2000\"")
		rounds  = flag.Int("rounds", 20, "policies that the differential test tries")
		timeout = flag.Duration("timeout", 30*time.Minute, "for one kernel")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	failed := false
	for _, series := range flag.Args() {
		m := &machine{
			init:  filepath.Join(*bin, "guest"),
			tests: []string{filepath.Join(*bin, "loader.test"), filepath.Join(*bin, "nic.test"), filepath.Join(*bin, "interfaces.test")},
			dir:   *dir, timeout: *timeout,
			plan: []string{fmt.Sprintf("/loader.test -test.v -test.parallel=1 -test.run=%s -rounds=%d %s", *run, *rounds, *more)},
		}
		if *run == "" {
			m.plan = append(m.plan,
				"/nic.test -test.v -nics=eth0,eth1 -want=native",
				"/nic.test -test.v -nics=eth2,eth3 -want=generic",
				"/interfaces.test -test.v -test.parallel=1 -kinds=bridge,dummy,ifb,bond,vlan")
		}
		if err := try(ctx, m, series); err != nil {
			failed = true
			fmt.Printf("FAIL %s: %v\n", series, err)
		}
	}
	if failed || flag.NArg() == 0 {
		os.Exit(1)
	}
}

// try boots one kernel and prints what came of it.
func try(ctx context.Context, m *machine, series string) (err error) {
	if m.kernel, err = openKernel(m.dir, series); err != nil {
		return err
	}
	fmt.Printf("==== %s\n", m.kernel.release)
	began := time.Now()
	out, err := m.boot(ctx)
	r := read(out)
	for _, line := range r.failures {
		fmt.Println(line)
	}
	for _, line := range r.steps {
		fmt.Println(line)
	}
	fmt.Printf("%d passed, %d failed, %.0f s; logs: %s, %s\n",
		r.passed, r.failed, time.Since(began).Seconds(), m.path("out"), m.path("console"))
	faults, consoleErr := kernelFaults(m.path("console"))
	switch {
	case err != nil || consoleErr != nil:
		return errors.Join(err, consoleErr)
	case len(faults) > 0:
		return fmt.Errorf("the kernel itself failed: %s", strings.Join(faults, "; "))
	case !r.ended:
		return fmt.Errorf("the guest did not come to its end")
	case r.failed > 0 || r.bad > 0:
		return fmt.Errorf("%d tests failed", max(r.failed, 1))
	case r.passed == 0:
		return fmt.Errorf("no test ran")
	}
	return nil
}

var faultLine = regexp.MustCompile(`BUG: |Oops: |general protection fault|Kernel panic|rcu: INFO: .*stall`)

// kernelFaults are the lines of the kernel's log that no test may cause.
func kernelFaults(console string) (faults []string, err error) {
	log, err := os.ReadFile(console)
	if err != nil {
		return nil, fmt.Errorf("read the kernel's log: %w", err)
	}
	for line := range strings.Lines(string(log)) {
		if faultLine.MatchString(line) {
			faults = append(faults, strings.TrimSpace(line))
		}
	}
	return faults, nil
}

// result is what a guest said.
type result struct {
	passed, failed int
	bad            int      // commands that did not exit with 0
	steps          []string // one a command
	failures       []string // the words of tests that failed
	ended          bool
}

var verdictLine = regexp.MustCompile(`^(\s*)--- (PASS|FAIL): (\S+)`)

// read takes the guest's output apart. Go prints a failing test's own words
// before its verdict.
func read(out string) (r result) {
	var command string
	var words []string
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if cmd, ok := strings.CutPrefix(line, "guest: run "); ok {
			command, words = cmd, nil
			continue
		}
		if code, ok := strings.CutPrefix(line, "guest: exit "); ok {
			r.steps = append(r.steps, command+": exit "+code)
			if !strings.HasPrefix(code, "0 ") {
				r.bad++
				r.failures = append(r.failures, words...)
			}
			continue
		}
		r.ended = r.ended || line == "guest: end"
		m := verdictLine.FindStringSubmatch(line)
		if m == nil {
			if !strings.HasPrefix(line, "=== ") {
				words = append(words, line)
			}
			continue
		}
		if m[1] != "" { // a subtest's, after its test's own
			if m[2] == "FAIL" {
				r.failures = append(r.failures, line)
			}
			continue
		}
		words = append(words, line)
		if m[2] == "FAIL" {
			r.failed++
			r.failures = append(r.failures, words...)
		} else {
			r.passed++
		}
		words = nil
	}
	return r
}
