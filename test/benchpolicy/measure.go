package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/test/lab"
)

// result is what one size came to.
type result struct {
	n     int
	steps []step
	mem   []memory
}

// step is one command, or one of a kind.
type step struct {
	what string
	took []time.Duration // one each time it was run
	wait map[string]time.Duration
	errs int // connections and questions that failed meanwhile
}

// memory is the agent's at some point, in MiB.
type memory struct {
	when string
	mib  int
}

// singles is how often a change of one prefix is measured.
const singles = 21

func measure(ctx context.Context, bin string, n int, verbose bool) (_ *result, err error) {
	s := &stage{ctx: ctx}
	defer s.Strike()
	defer lab.Catch(&err)
	if s.bin, err = filepath.Abs(bin); err != nil {
		return nil, err
	}
	s.build()
	m := &measuring{s: s, r: &result{n: n}, verbose: verbose}
	m.play()
	return m.r, nil
}

type measuring struct {
	s       *stage
	r       *result
	verbose bool

	view      *loader.Filter
	one, many []time.Duration // until the index followed
}

// play goes through the life of a policy.
func (m *measuring) play() {
	s, n := m.s, m.r.n
	all := prefixes(n+n/2, uint64(n))
	first, second, some := m.file("first", text(all[:n])), m.file("second", text(all[n/2:])), lines(all[n:])
	s.start()
	if _, err := s.synward("", "allow", "add", homePrefix); err != nil {
		s.Fatalf("%w", err)
	}
	m.watchIndex()
	m.memory("no policy")
	m.step("policy apply, of nothing before", "", "policy", "apply", first)
	m.single("allow add of one, the first after it", 0, 1)
	m.single("allow add of one, at once after the last", 1, singles)
	m.step("allow remove of one", "", "allow", "remove", single(0))
	m.rest()
	m.memory("after policy apply, at rest")
	m.alone("allow add of one, a second after the last", singles+1)
	m.step("policy apply, half of it other prefixes", "", "policy", "apply", second)
	m.step("policy apply, the same again", "", "policy", "apply", second)
	m.step("policy undo", "", "policy", "undo")
	m.step("allow add - (half as many more)", some, "allow", "add", "-")
	m.step("allow remove - (these)", some, "allow", "remove", "-")
	m.rest()
	m.memory("after all that, at rest")
	m.step("policy export", "", "policy", "export")
	s.stop()
	m.note(step{what: "restart of the agent, until it answers", took: []time.Duration{s.start()}})
	m.memory("after a restart")
	m.single("allow add of one, the first after it", 3*singles, 1)
	m.step("policy apply, of nothing", "", "policy", "apply", m.file("none", text(nil)))
	m.step("policy import of a plain list, of nothing before", "", "policy", "import", m.file("list", lines(all[:n])))
	m.note(step{what: indexOfOne, took: m.one})
	m.note(step{what: indexOfMany, took: m.many})
	m.r.mem = append(m.r.mem, memory{"at most", s.memory("VmHWM")})
}

func (m *measuring) file(name, text string) string {
	path := filepath.Join(m.s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.s.Fatalf("write a policy: %w", err)
	}
	return path
}

func (m *measuring) note(st step) {
	m.r.steps = append(m.r.steps, st)
	if m.verbose {
		slices.Sort(st.took)
		fmt.Fprintf(os.Stderr, "%8d  %-45s %10s .. %10s  %v %d errors\n", m.r.n, st.what,
			st.took[len(st.took)/2].Round(100*time.Microsecond), st.took[len(st.took)-1].Round(100*time.Microsecond), st.wait, st.errs)
	}
}

// step runs one command, with everything watched.
func (m *measuring) step(what, input string, args ...string) {
	w := m.s.watch()
	took, err := m.s.synward(input, args...)
	var index time.Duration
	if err == nil {
		index = m.indexed()
	}
	st := step{what: what, took: []time.Duration{took}}
	st.wait, st.errs = w.end()
	if err != nil {
		m.s.Fatalf("%w\n%s", err, m.s.log())
	}
	if st.wait["index"] = index; what != "policy export" {
		m.many = append(m.many, index)
	}
	m.note(st)
}

// alone adds prefixes one by one, with nothing going on in between.
func (m *measuring) alone(what string, from int) { m.adds(what, from, singles, time.Second) }

// single adds prefixes one by one.
func (m *measuring) single(what string, from, n int) { m.adds(what, from, n, 0) }

func (m *measuring) adds(what string, from, n int, pause time.Duration) {
	st := step{what: what}
	for i := range n {
		time.Sleep(pause)
		took, err := m.s.synward("", "allow", "add", single(from+i))
		if err != nil {
			m.s.Fatalf("%w\n%s", err, m.s.log())
		}
		st.took = append(st.took, took)
		if pause > 0 {
			m.one = append(m.one, m.indexed())
		}
	}
	m.note(st)
}

// rest waits until the agent has done what follows from a change, which waits for
// some seconds itself.
func (m *measuring) rest() {
	for used, quiet := m.s.cpu(), 0; quiet < 10; {
		time.Sleep(500 * time.Millisecond)
		if m.s.ctx.Err() != nil {
			m.s.Fatalf("%w", m.s.ctx.Err())
		}
		now := m.s.cpu()
		if quiet++; now-used > 5 {
			quiet = 0
		}
		used = now
	}
}

func (m *measuring) memory(when string) {
	m.r.mem = append(m.r.mem, memory{when, m.s.memory("VmRSS")})
	if m.verbose {
		fmt.Fprintf(os.Stderr, "%8d  memory %s: %d MiB, %d of them anonymous, at most %d\n", m.r.n, when, m.s.memory("VmRSS"), m.s.memory("RssAnon"), m.s.memory("VmHWM"))
	}
}

// single is the i-th prefix that no policy has.
func single(i int) string { return "240.0." + strconv.Itoa(i/256) + "." + strconv.Itoa(i%256) }
