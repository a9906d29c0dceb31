package agent

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/journal"
	"github.com/synward/synward/agent/policy"
)

// soon is how long before its end an entry is said to expire soon.
const soon = 7 * 24 * time.Hour

// fewBlocks is up to how many networks an entry may have been used from to be
// called too wide.
const fewBlocks = 4

// reviewing is a review under way.
type reviewing struct {
	set      *policy.Set
	now      time.Time
	limit    time.Time // a hit after it counts
	days     int
	uses     *journal.Uses
	rows     map[uint64][]netip.Prefix // sources that passed, by entry
	findings []control.Finding
}

// review answers GET /v1/review.
func (a *Agent) review(r *http.Request) (any, error) {
	days, err := numberOf(r.URL.Query(), "days", 30)
	if err != nil || days == 0 {
		return nil, control.Errorf(http.StatusBadRequest, "days: write a whole number above 0")
	}
	if err := a.readUse(); err != nil {
		return nil, err
	}
	set, _ := a.state()
	v := reviewing{set: set, now: a.now(), days: days, uses: a.journal.uses, rows: map[uint64][]netip.Prefix{}, findings: []control.Finding{}}
	v.limit = v.now.AddDate(0, 0, -days)
	rows, err := a.journal.attempts.Since(v.limit)
	if err != nil {
		a.log.Warn("review without a part of the journal", "error", err)
	}
	for _, row := range rows {
		if row.Passed && !row.Observed {
			v.rows[row.Entry] = append(v.rows[row.Entry], row.Source)
		}
	}
	named := map[policy.Key][]policy.Entry{}
	for e := range set.All() {
		if isOwn(e) {
			v.look(e)
		} else if e.Name != "" {
			named[subjectOf(e)] = append(named[subjectOf(e)], e)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(named), func(a, b policy.Key) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Action, b.Action))
	}) {
		v.lookAtName(k, named[k])
	}
	return control.Review{Since: v.uses.Since(), Findings: v.findings}, nil
}

func (v *reviewing) find(kind string, e policy.Entry, command, why string, args ...any) {
	v.findings = append(v.findings, control.Finding{Kind: kind, Entry: e, Why: fmt.Sprintf(why, args...), Command: command})
}

// look judges one entry.
func (v *reviewing) look(e policy.Entry) {
	remove := v.removeCommand(e)
	if e.Expired(v.now) {
		v.find("expired", e, remove, "expired on %s", e.Expires.Format(time.DateOnly))
		return
	}
	if o := hiddenBy(v.set, e, v.now); o != nil {
		kind := "shadowed"
		if o.Action == e.Action {
			kind = "duplicate"
		}
		v.find(kind, e, removeFrom(e), "the %s of the same prefix and origin %s comes before it", o.Action, o.Origin)
		return
	}
	if !e.Expires.IsZero() && e.Expires.Sub(v.now) < soon {
		longer := addCommand(e, e.Prefix.String()) + " --ttl 90d"
		if e.Origin != policy.Operator { // what is added is the operator's, and comes before it
			longer += " && " + removeFrom(e)
		}
		v.find("expiring", e, longer, "expires on %s", e.Expires.Format(time.DateTime))
	}
	if o := v.sameAround(e); o != nil {
		v.find("shadowed", e, remove, "%s %s around it says the same", o.Action, o.Prefix)
		return
	}
	if v.unused(e) {
		v.find("unused", e, remove, "no hit for %d days", v.days)
		return
	}
	v.width(e)
}

// lookAtName judges a name by all the entries that come of it.
func (v *reviewing) lookAtName(k policy.Key, entries []policy.Entry) {
	e := entries[0]
	remove := fmt.Sprintf("synward %s remove %s", k.Action, k.Name)
	switch {
	case e.Expired(v.now):
		v.find("expired", e, remove, "%s expired on %s", k.Name, e.Expires.Format(time.DateOnly))
	case !e.Expires.IsZero() && e.Expires.Sub(v.now) < soon:
		v.find("expiring", e, addCommand(e, k.Name)+" --ttl 90d", "%s expires on %s", k.Name, e.Expires.Format(time.DateTime))
	case !slices.ContainsFunc(entries, func(e policy.Entry) bool { return !v.unused(e) }):
		v.find("unused", e, remove, "no hit for %d days from any of the %d prefixes of %s", v.days, len(entries), k.Name)
	}
}

// unused says whether nothing has hit the entry for the days, as far as that
// is known for all of them.
func (v *reviewing) unused(e policy.Entry) bool {
	use := v.uses.Of(e.ID())
	if use.Count > 0 {
		return use.Last.Before(v.limit)
	}
	return e.At.Before(v.limit) && v.uses.Since().Before(v.limit)
}

// sameAround is the entry around one that would say the same were that not
// there; nil = there is none.
func (v *reviewing) sameAround(e policy.Entry) *policy.Entry {
	for o := range v.set.Covering(e.Prefix.Addr()) {
		if o.Prefix.Bits() >= e.Prefix.Bits() || o.Expired(v.now) || !o.Own() {
			continue
		}
		if !covers(o.Ports, e.Ports) && !covers(e.Ports, o.Ports) && !overlapping(o.Ports, e.Ports) {
			continue // the two speak of different ports
		}
		alike := o
		alike.Prefix, alike.Origin, alike.Note, alike.Ports, alike.Name = e.Prefix, e.Origin, e.Note, e.Ports, e.Name
		if covers(o.Ports, e.Ports) && alike.Same(e) && !e.Shared && o.Name == "" { // what a name stands for may be another tomorrow
			return &o
		}
		return nil
	}
	return nil
}

func overlapping(a, b []uint16) bool {
	return slices.ContainsFunc(a, func(p uint16) bool { return slices.Contains(b, p) })
}

// width finds an allow that is used from a small part of it only.
func (v *reviewing) width(e policy.Entry) {
	unit := 24
	if e.Prefix.Addr().Is6() {
		unit = 48
		if e.Prefix.Bits() >= 48 {
			unit = 64
		}
	}
	if e.Action != policy.Allow || e.Prefix.Bits() > unit-4 || !e.At.Before(v.now.Add(-soon)) || v.uses.Since().After(v.now.Add(-soon)) {
		return
	}
	var blocks []netip.Prefix
	for _, s := range v.rows[e.ID()] {
		if s.Bits() < unit {
			return // the entry's sources are not told apart
		}
		b, err := s.Addr().Prefix(unit)
		if err == nil && !slices.Contains(blocks, b) {
			blocks = append(blocks, b)
		}
	}
	if len(blocks) == 0 || len(blocks) > fewBlocks {
		return
	}
	slices.SortFunc(blocks, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	var words []string
	for _, b := range blocks {
		if v.between(e, b) {
			return // an allow of the block would undo a part of it
		}
		words = append(words, b.String())
	}
	command := addCommand(e, words...)
	if !e.Expires.IsZero() {
		command += " --ttl " + e.Expires.Sub(v.now).Round(time.Second).String()
	}
	command += " && " + v.removeCommand(e)
	v.find("wide", e, command, "a /%d, but only %d /%d of it used in %d days", e.Prefix.Bits(), len(blocks), unit, v.days)
}

// between says whether another of the operator's entries lies around a block of
// one, and not around the whole of it.
func (v *reviewing) between(e policy.Entry, block netip.Prefix) bool {
	for o := range v.set.Covering(block.Addr()) {
		if o.Own() && o.Key() != e.Key() && o.Prefix.Bits() >= e.Prefix.Bits() && o.Prefix.Bits() <= block.Bits() {
			return true
		}
	}
	return false
}

// removeCommand is the command that removes an entry, and no twin of it that is
// of another origin.
func (v *reviewing) removeCommand(e policy.Entry) string {
	for _, origin := range []policy.Origin{policy.Operator, policy.File, policy.Learned} {
		k := e.Key()
		k.Origin = origin
		if _, there := v.set.Get(k); there && origin != e.Origin {
			return removeFrom(e)
		}
	}
	return fmt.Sprintf("synward %s remove %s", e.Action, e.Prefix)
}

// removeFrom is the command that removes an entry of just its origin.
func removeFrom(e policy.Entry) string {
	return fmt.Sprintf("synward %s remove %s --origin %s", e.Action, e.Prefix, e.Origin)
}

// addCommand is the command that makes an entry for prefixes or a name, without
// its expiry.
func addCommand(e policy.Entry, what ...string) string {
	words := append([]string{"synward", string(e.Action), "add"}, what...)
	if len(e.Ports) > 0 {
		words = append(words, "--ports", strings.ReplaceAll(strings.Trim(fmt.Sprint(e.Ports), "[]"), " ", ","))
	}
	if e.MaxConns != nil {
		words = append(words, "--max-conns", fmt.Sprint(*e.MaxConns))
	}
	if e.Rate != nil {
		words = append(words, "--rate", e.Rate.String())
	}
	if e.Burst != nil {
		words = append(words, "--burst", fmt.Sprint(*e.Burst))
	}
	for _, f := range []struct {
		set  bool
		flag string
	}{{e.Shared, "--shared"}, {e.Relay, "--relay"}, {e.Immune, "--immune"}} {
		if f.set {
			words = append(words, f.flag)
		}
	}
	if e.Note != "" {
		flag, note := "--note ", "'"+strings.ReplaceAll(e.Note, "'", `'\''`)+"'"
		if e.Note[0] == '-' { // else it would be taken for a flag
			flag = "--note="
		}
		words = append(words, flag+note)
	}
	return strings.Join(words, " ")
}
