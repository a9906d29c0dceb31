package policy_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/synward/synward/agent/policy"
)

// plain is a set as a map: what a Set must not differ from.
type plain map[policy.Key]policy.Entry

func (p plain) sorted() []policy.Entry {
	order := map[policy.Origin]int{policy.Operator: 0, policy.File: 1, policy.Feed: 2, policy.Learned: 3}
	return slices.SortedFunc(maps.Values(p), func(a, b policy.Entry) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), a.Prefix.Bits()-b.Prefix.Bits(),
			order[a.Origin]-order[b.Origin], -cmp.Compare(a.Action, b.Action), cmp.Compare(a.Feed, b.Feed), cmp.Compare(a.Name, b.Name))
	})
}

// crowd makes entries close together, so that they meet and nest.
func crowd(r *rand.Rand) policy.Entry {
	e := policy.Entry{Action: policy.Allow, Origin: policy.Operator, Note: fmt.Sprint("note ", r.IntN(3))}
	a := netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(256)), byte(r.IntN(256))})
	if bits := 8 + r.IntN(25); r.IntN(3) == 0 {
		b := [16]byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, byte(r.IntN(4)), byte(r.IntN(256)), 15: byte(r.IntN(256))}
		e.Prefix = netip.PrefixFrom(netip.AddrFrom16(b), 4*bits).Masked()
	} else {
		e.Prefix = netip.PrefixFrom(a, bits).Masked()
	}
	switch r.IntN(8) {
	case 0:
		e.Origin, e.Feed, e.Action = policy.Feed, fmt.Sprint("f", r.IntN(2)), policy.Deny
	case 1:
		e.Name = "office.example.org"
	case 2:
		e.Expires = start.Add(time.Duration(r.IntN(10)) * time.Minute)
	case 3:
		n := uint32(r.IntN(3))
		e.Relay, e.MaxConns, e.Ports = true, &n, []uint16{25, 587}
	case 4:
		e.Action = policy.Deny
	}
	return e
}

// Many chunks, written to by clones in turns: none sees another's changes.
func TestSetIsWhatAMapIs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	first := plain{}
	for range 2000 {
		e := crowd(r)
		first[e.Key()] = e
	}
	sets, models := []*policy.Set{policy.NewSet(slices.Collect(maps.Values(first))...)}, []plain{first}
	for range 6 {
		from := r.IntN(len(sets))
		set, model := sets[from].Clone(), maps.Clone(models[from])
		for range r.IntN(2000) {
			e := crowd(r)
			if r.IntN(3) == 0 {
				old, removed := set.Remove(e.Key())
				if was, there := model[e.Key()]; there != removed || removed && !was.Same(old) {
					t.Fatalf("removed %v %v, want %v %v", removed, old, there, was)
				}
				delete(model, e.Key())
				continue
			}
			old, replaced := set.Put(e)
			if was, there := model[e.Key()]; there != replaced || replaced && !was.Same(old) {
				t.Fatalf("replaced %v %v, want %v %v", replaced, old, there, was)
			}
			model[e.Key()] = e
		}
		sets, models = append(sets, set), append(models, model)
	}
	for i, set := range sets {
		checkSet(t, set, models[i], r)
		for j := range sets {
			checkDiff(t, policy.Diff(set, sets[j]), models[i], models[j])
		}
	}
}

func checkSet(t *testing.T, set *policy.Set, model plain, r *rand.Rand) {
	t.Helper()
	want := model.sorted()
	same := func(what string, got, want []policy.Entry) {
		t.Helper()
		if !slices.EqualFunc(got, want, policy.Entry.Same) {
			t.Fatalf("%s: %d entries, want %d", what, len(got), len(want))
		}
	}
	same("all", slices.Collect(set.All()), want)
	if set.Len() != len(want) {
		t.Fatalf("length %d, want %d", set.Len(), len(want))
	}
	for trait, has := range map[policy.Trait]func(policy.Entry) bool{
		policy.Expires: func(e policy.Entry) bool { return !e.Expires.IsZero() },
		policy.Relays:  func(e policy.Entry) bool { return e.Relay },
		policy.Derived: func(e policy.Entry) bool { return e.Feed+e.Name != "" },
		policy.Denies:  func(e policy.Entry) bool { return e.Action == policy.Deny },
	} {
		few := slices.DeleteFunc(slices.Clone(want), func(e policy.Entry) bool { return !has(e) })
		same(fmt.Sprint("trait ", trait), slices.Collect(set.Having(trait)), few)
		if set.Count(trait) != len(few) {
			t.Fatalf("trait %d: counted %d, want %d", trait, set.Count(trait), len(few))
		}
	}
	for range 40 {
		e := crowd(r)
		got, found := set.Get(e.Key())
		if was, there := model[e.Key()]; there != found || found && !got.Same(was) {
			t.Fatalf("got %v %v", found, got)
		}
		inside := slices.DeleteFunc(slices.Clone(want), func(o policy.Entry) bool {
			return o.Prefix.Bits() < e.Prefix.Bits() || !e.Prefix.Contains(o.Prefix.Addr())
		})
		same("within "+e.Prefix.String(), slices.Collect(set.Within(e.Prefix)), inside)
		around := slices.DeleteFunc(slices.Clone(want), func(o policy.Entry) bool { return !o.Prefix.Contains(e.Prefix.Addr()) })
		slices.SortStableFunc(around, func(a, b policy.Entry) int { return b.Prefix.Bits() - a.Prefix.Bits() })
		same("covering "+e.Prefix.Addr().String(), slices.Collect(set.Covering(e.Prefix.Addr())), around)
	}
}

func checkDiff(t *testing.T, c policy.Changes, from, to plain) {
	t.Helper()
	added, removed, changed := plain{}, plain{}, plain{}
	for k, e := range to {
		if was, there := from[k]; !there {
			added[k] = e
		} else if !was.Same(e) {
			changed[k] = e
		}
	}
	for k, e := range from {
		if _, there := to[k]; !there {
			removed[k] = e
		}
	}
	var news []policy.Entry
	for _, ch := range c.Changed {
		if !ch.Old.Same(from[ch.Old.Key()]) {
			t.Fatalf("before: %v", ch.Old)
		}
		news = append(news, ch.New)
	}
	for what, p := range map[string]struct{ got, want []policy.Entry }{
		"added": {c.Added, added.sorted()}, "removed": {c.Removed, removed.sorted()}, "changed": {news, changed.sorted()},
	} {
		if !slices.EqualFunc(p.got, p.want, policy.Entry.Same) {
			t.Fatalf("%s: %d entries, want %d", what, len(p.got), len(p.want))
		}
	}
}
