package main

import (
	"time"

	"github.com/synward/synward/loader"
)

// The rows on how soon the index follows. Until then the tries answer, so that
// what the command said is in force already.
const (
	indexOfOne  = "after a change of one prefix, until the index has it"
	indexOfMany = "after a change of many, until the index has them"
)

// indexPromise is how late the index may be.
const indexPromise = 100 * time.Millisecond

// indexed is how long it takes from now, the end of a command, until the filter
// says that an index answers. The word that packets read goes to "no index" before
// a trie changes, so an index that answers is of all that has been said.
func (m *measuring) indexed() time.Duration {
	began := time.Now()
	for {
		done, err := m.view.Indexed()
		switch took := time.Since(began); {
		case err != nil:
			m.s.Fatalf("%w", err)
		case done:
			return took
		case took > time.Minute || m.s.ctx.Err() != nil:
			m.s.Fatalf("there is still no index, %s after the command\n%s", took, m.s.log())
		}
		time.Sleep(time.Millisecond)
	}
}

// watchIndex opens the filter for indexed, beside the agent.
func (m *measuring) watchIndex() {
	view, err := loader.View(m.s.pins)
	if err != nil {
		m.s.Fatalf("%w", err)
	}
	m.s.Cleanup(func() { view.Close() })
	m.view = view
}
