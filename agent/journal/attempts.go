package journal

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/synward/synward/agent/store"
	"github.com/synward/synward/loader/rule"
)

// Kind is what attempts are counted by.
type Kind struct {
	Source   netip.Prefix `json:"source"`           // an IPv4 address, an IPv6 prefix, or an entry's whole prefix
	Port     uint16       `json:"port,omitempty"`   // 0 = not known
	Passed   bool         `json:"passed,omitempty"` // the verdict
	Observed bool         `json:"observed,omitempty"`
	Reason   string       `json:"reason"`
	Entry    uint64       `json:"entry,omitempty"` // the ID of the entry that decided; 0 = the port's default
}

// Verdict is the kind's verdict as the policy has it.
func (k Kind) Verdict() rule.Verdict {
	if k.Passed {
		return rule.Pass
	}
	return rule.Drop
}

// Attempt is a number of attempts of one kind on one day.
type Attempt struct {
	Kind
	Count uint64    `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// Attempts counts attempts by day, the last days of them.
type Attempts struct {
	dir  string
	days int
	most int // kinds a day, of those that passed and of those that did not

	mu    sync.Mutex
	date  string // of today
	kinds [2]map[Kind]*Attempt
	lost  uint64 // attempts of kinds that had no room
	dirty bool
}

// prefixOfDay and suffixOfDay make the name of a day's file.
const (
	prefixOfDay = "attempts-"
	suffixOfDay = ".json.gz"
)

// OpenAttempts opens the counts in a folder, which is made where it is missing.
// It keeps so many days (today is one), and at most so many kinds a day of
// those that passed and of those that did not: strangers without number must
// not push out the sources that the policy is for. The error, which leaves an
// Attempts that can be used, says that today's file could not be read.
func OpenAttempts(dir string, days, most int, now time.Time) (*Attempts, error) {
	a := &Attempts{dir: dir, days: days, most: most}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return a, fmt.Errorf("make the journal's folder: %w", err)
	}
	a.begin(now)
	rows, err := readDay(a.file(a.date))
	for _, r := range rows {
		a.kinds[room(r.Kind)][r.Kind] = &r
	}
	return a, err
}

func dateOf(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func (a *Attempts) file(date string) string {
	return filepath.Join(a.dir, prefixOfDay+date+suffixOfDay)
}

func room(k Kind) int {
	if k.Passed {
		return 1
	}
	return 0
}

func (a *Attempts) begin(now time.Time) {
	a.date, a.lost, a.dirty = dateOf(now), 0, false
	a.kinds = [2]map[Kind]*Attempt{{}, {}}
}

// Add counts attempts that were made up to a time.
func (a *Attempts) Add(k Kind, count uint64, at time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	at = at.UTC().Truncate(time.Second)
	var err error
	if date := dateOf(at); date > a.date {
		err = a.save()
		a.begin(at)
	}
	a.dirty = true
	in := a.kinds[room(k)]
	row := in[k]
	if row == nil {
		if len(in) >= a.most {
			a.evict(in)
		}
		row = &Attempt{Kind: k, First: at, Last: at}
		in[k] = row
	}
	row.Count += count
	if at.After(row.Last) {
		row.Last = at
	}
	return err
}

// evict makes room by the least of a few: a map's walk begins anywhere.
func (a *Attempts) evict(in map[Kind]*Attempt) {
	var least *Attempt
	n := 0
	for _, row := range in {
		if least == nil || cmp.Or(cmp.Compare(row.Count, least.Count), row.Last.Compare(least.Last)) < 0 {
			least = row
		}
		if n++; n == 16 {
			break
		}
	}
	a.lost += least.Count
	delete(in, least.Kind)
}

// Lost is how many of today's attempts are not told apart any more.
func (a *Attempts) Lost() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lost
}

// Save writes today's counts, and removes days that are too old.
func (a *Attempts) Save(now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return errors.Join(a.save(), a.prune(now))
}

func (a *Attempts) save() error {
	if !a.dirty {
		return nil
	}
	var buf bytes.Buffer
	z, _ := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
	enc := json.NewEncoder(z)
	for _, in := range a.kinds {
		for _, row := range in {
			if err := enc.Encode(row); err != nil {
				return fmt.Errorf("write attempts: %w", err)
			}
		}
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("write attempts: %w", err)
	}
	if err := store.WriteFile(a.file(a.date), buf.Bytes()); err != nil {
		return err
	}
	a.dirty = false
	return nil
}

func (a *Attempts) prune(now time.Time) error {
	dates, err := a.dates()
	if err != nil {
		return err
	}
	oldest, newest := dateOf(now.AddDate(0, 0, 1-a.days)), dateOf(now.AddDate(0, 0, 1))
	for _, d := range dates {
		if d < oldest || d > newest { // the latter by a clock that was wrong
			err = errors.Join(err, os.Remove(a.file(d)))
		}
	}
	return err
}

// dates are the days that are on disk, sorted.
func (a *Attempts) dates() ([]string, error) {
	files, err := os.ReadDir(a.dir)
	if err != nil {
		return nil, fmt.Errorf("list attempts: %w", err)
	}
	var out []string
	for _, f := range files {
		date, ok := strings.CutPrefix(f.Name(), prefixOfDay)
		if date, is := strings.CutSuffix(date, suffixOfDay); ok && is {
			out = append(out, date)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Since adds up, by kind, the attempts of the days from a time on. A day that
// cannot be read is left out, and the error says so.
func (a *Attempts) Since(t time.Time) ([]Attempt, error) {
	a.mu.Lock()
	today := a.date
	var rows []Attempt
	for _, in := range a.kinds {
		for _, row := range in {
			rows = append(rows, *row)
		}
	}
	a.mu.Unlock()
	dates, err := a.dates()
	for _, d := range dates {
		if d < dateOf(t) || d == today {
			continue
		}
		more, rerr := readDay(a.file(d))
		rows, err = append(rows, more...), errors.Join(err, rerr)
	}
	return merge(rows, t), err
}

// merge makes one row of each kind, without what ended before t.
func merge(rows []Attempt, t time.Time) []Attempt {
	by := map[Kind]*Attempt{}
	for _, r := range rows {
		if r.Last.Before(t.Truncate(time.Second)) {
			continue
		}
		sum := by[r.Kind]
		if sum == nil {
			by[r.Kind] = &r
			continue
		}
		sum.Count += r.Count
		if r.First.Before(sum.First) {
			sum.First = r.First
		}
		if r.Last.After(sum.Last) {
			sum.Last = r.Last
		}
	}
	out := make([]Attempt, 0, len(by))
	for _, r := range by {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Attempt) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), a.Source.Addr().Compare(b.Source.Addr()), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

// maxDay bounds what a day's file may unpack to.
const maxDay = 256 << 20

func readDay(path string) (rows []Attempt, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("read attempts %s: %w", path, err)
	}
	for dec := json.NewDecoder(io.LimitReader(z, maxDay)); ; {
		var r Attempt
		err := dec.Decode(&r)
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil || !r.Source.IsValid() {
			return rows, fmt.Errorf("read attempts %s: %w", path, cmp.Or(err, errors.New("a row without a source")))
		}
		rows = append(rows, r)
	}
}
