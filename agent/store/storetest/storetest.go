// Package storetest is the suite that every store.Store must pass.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// Run runs the suite. open opens the store that lives under a directory of
// the test's own; opening it again after Close must find what was there.
func Run(t *testing.T, open func(t *testing.T, dir string) store.Store) {
	for name, test := range map[string]func(*testing.T, store.Store){
		"Fresh": testFresh, "Entries": testEntries, "NothingChanges": testNothingChanges,
		"CompareAndSwap": testCompareAndSwap, "AllOrNothing": testAllOrNothing, "Docs": testDocs,
		"Counter": testCounter, "OneRevision": testOneRevision, "Cancelled": testCancelled,
		"CallersError": testCallersError, "Many": testMany,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			test(t, s)
			if err := errors.Join(s.Close(), s.Close()); err != nil {
				t.Errorf("close twice: %v", err)
			}
		})
	}
	t.Run("Reopen", func(t *testing.T) { testReopen(t, open) })
}

// Entry returns a valid entry, another for each i.
func Entry(i int) policy.Entry {
	n := uint32(i)
	return policy.Entry{
		Action: policy.Allow, Origin: policy.Operator, Ports: []uint16{25, 587}, MaxConns: &n,
		Rate:    &policy.Rate{N: 5, Period: time.Minute},
		Prefix:  netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32),
		Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		Note:    fmt.Sprintf("number %d", i), By: "uid 0", At: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
}

func commit(t *testing.T, s store.Store, b store.Batch) uint64 {
	t.Helper()
	revision, err := s.Commit(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// check compares the whole policy, in any order, and returns the revision.
func check(t *testing.T, s store.Store, want ...policy.Entry) uint64 {
	t.Helper()
	got, revision, err := store.Entries(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	have, wanted := policy.NewSet(got...), policy.NewSet(want...)
	if c := policy.Diff(wanted, have); !c.Empty() || len(got) != len(want) {
		t.Fatalf("%d entries, want %d; differences %+v", len(got), len(want), c)
	}
	for e := range have.All() {
		if w, _ := wanted.Get(e.Key()); w.By != e.By || !w.At.Equal(e.At) {
			t.Errorf("entry by %q at %v, want %q at %v", e.By, e.At, w.By, w.At)
		}
	}
	return revision
}

func testFresh(t *testing.T, s store.Store) {
	if revision := check(t, s); revision < 1 {
		t.Errorf("revision %d, want at least 1", revision)
	}
	if docs, _, err := store.Docs(t.Context(), s, "accounts"); err != nil || len(docs) != 0 {
		t.Errorf("documents %v, %v", docs, err)
	}
}

func testEntries(t *testing.T, s store.Store) {
	first := commit(t, s, store.Batch{Put: []policy.Entry{Entry(1), Entry(2), Entry(3)}})
	check(t, s, Entry(1), Entry(2), Entry(3))
	changed := Entry(2)
	changed.Note, changed.Rate, changed.Ports = "changed", nil, nil
	second := commit(t, s, store.Batch{Delete: []policy.Key{Entry(1).Key(), Entry(9).Key()}, Put: []policy.Entry{changed, Entry(4)}})
	if now := check(t, s, changed, Entry(3), Entry(4)); second <= first || now != second {
		t.Errorf("revisions %d, %d, then %d", first, second, now)
	}
	deny := Entry(4)
	deny.Action, deny.MaxConns, deny.Rate = policy.Deny, nil, nil
	commit(t, s, store.Batch{Put: []policy.Entry{deny}})
	check(t, s, changed, Entry(3), Entry(4), deny)
	commit(t, s, store.Batch{Delete: []policy.Key{Entry(3).Key()}, Put: []policy.Entry{Entry(3)}})
	check(t, s, changed, Entry(3), Entry(4), deny)
}

func testNothingChanges(t *testing.T, s store.Store) {
	doc := store.Doc{Collection: "c", Name: "n", Data: []byte("x")}
	b := store.Batch{Put: []policy.Entry{Entry(1)}, PutDocs: []store.Doc{doc}}
	before := commit(t, s, b)
	b.Delete = []policy.Key{Entry(2).Key()}
	b.DeleteDocs = []store.Doc{{Collection: "other", Name: "n"}}
	if after := commit(t, s, b); after != before {
		t.Errorf("revision %d after nothing changed, was %d", after, before)
	}
	if after := commit(t, s, store.Batch{If: before}); after != before {
		t.Errorf("revision %d after an empty batch, was %d", after, before)
	}
}

func testCompareAndSwap(t *testing.T, s store.Store) {
	first := check(t, s)
	second := commit(t, s, store.Batch{If: first, Put: []policy.Entry{Entry(1)}})
	for _, stale := range []uint64{first, second + 1} {
		_, err := s.Commit(t.Context(), store.Batch{If: stale, Put: []policy.Entry{Entry(2)}, Delete: []policy.Key{Entry(1).Key()}})
		if !errors.Is(err, store.ErrChanged) {
			t.Errorf("commit at revision %d, which is %d: error %v", stale, second, err)
		}
	}
	if now := check(t, s, Entry(1)); now != second {
		t.Errorf("revision %d, want %d", now, second)
	}
}

func testAllOrNothing(t *testing.T, s store.Store) {
	before := commit(t, s, store.Batch{Put: []policy.Entry{Entry(1)}})
	bad := Entry(3)
	bad.Prefix = netip.PrefixFrom(bad.Prefix.Addr(), 8)
	for name, b := range map[string]store.Batch{
		"bad entry":      {Put: []policy.Entry{Entry(2), bad}, Delete: []policy.Key{Entry(1).Key()}},
		"bad name":       {Put: []policy.Entry{Entry(2)}, PutDocs: []store.Doc{{Collection: "c"}}},
		"bad collection": {Put: []policy.Entry{Entry(2)}, PutDocs: []store.Doc{{Name: "n"}}},
	} {
		if _, err := s.Commit(t.Context(), b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if now := check(t, s, Entry(1)); now != before {
		t.Errorf("revision %d, want %d", now, before)
	}
}

func testDocs(t *testing.T, s store.Store) {
	binary := []byte("\x00\xff\n")
	commit(t, s, store.Batch{PutDocs: []store.Doc{
		{Collection: "accounts", Name: "b", Data: binary}, {Collection: "accounts", Name: "a"}, {Collection: "other", Name: "c", Data: []byte("c")},
	}})
	docs, _, err := store.Docs(t.Context(), s, "accounts")
	if err != nil || len(docs) != 2 || docs[0].Name != "a" || len(docs[0].Data) != 0 ||
		docs[1].Name != "b" || docs[1].Collection != "accounts" || !bytes.Equal(docs[1].Data, binary) {
		t.Errorf("documents %v, %v", docs, err)
	}
	commit(t, s, store.Batch{DeleteDocs: []store.Doc{{Collection: "accounts", Name: "b"}, {Collection: "none", Name: "x"}}})
	if _, found, err := store.GetDoc(t.Context(), s, "accounts", "b"); err != nil || found {
		t.Errorf("deleted document found: %v, %v", found, err)
	}
	if data, found, err := store.GetDoc(t.Context(), s, "other", "c"); err != nil || !found || string(data) != "c" {
		t.Errorf("document %q, %v, %v", data, found, err)
	}
}

// testCounter has writers raise one number by compare-and-swap.
func testCounter(t *testing.T, s store.Store) {
	const writers, rounds = 4, 10
	raise := func(ctx context.Context) error {
		for {
			docs, revision, err := store.Docs(ctx, s, "counters")
			if err != nil {
				return err
			}
			n := 0
			if len(docs) > 0 {
				n, _ = strconv.Atoi(string(docs[0].Data))
			}
			doc := store.Doc{Collection: "counters", Name: "n", Data: []byte(strconv.Itoa(n + 1))}
			if _, err = s.Commit(ctx, store.Batch{If: revision, PutDocs: []store.Doc{doc}}); !errors.Is(err, store.ErrChanged) {
				return err
			}
		}
	}
	group, ctx := errgroup.WithContext(t.Context())
	for range writers {
		group.Go(func() error {
			for range rounds {
				if err := raise(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if data, _, err := store.GetDoc(t.Context(), s, "counters", "n"); err != nil || string(data) != strconv.Itoa(writers*rounds) {
		t.Errorf("counter %q, %v; want %d", data, err, writers*rounds)
	}
}

// testOneRevision has a reader look for half a batch.
func testOneRevision(t *testing.T, s store.Store) {
	group, ctx := errgroup.WithContext(t.Context())
	done := make(chan struct{})
	group.Go(func() error {
		defer close(done)
		for i := range 30 {
			data := []byte(strconv.Itoa(i))
			docs := []store.Doc{{Collection: "pair", Name: "a", Data: data}, {Collection: "pair", Name: "b", Data: data}}
			if _, err := s.Commit(ctx, store.Batch{PutDocs: docs}); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error {
		for {
			docs, _, err := store.Docs(ctx, s, "pair")
			if err != nil {
				return err
			}
			if len(docs) == 1 || len(docs) == 2 && !bytes.Equal(docs[0].Data, docs[1].Data) {
				return fmt.Errorf("half a batch: %q", docs)
			}
			select {
			case <-done:
				return nil
			default:
			}
		}
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func testCancelled(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Commit(ctx, store.Batch{Put: []policy.Entry{Entry(1)}}); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v", err)
	}
	if _, _, err := store.Entries(ctx, s); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	check(t, s)
}

func testCallersError(t *testing.T, s store.Store) {
	mine := errors.New("mine")
	if err := s.View(t.Context(), func(store.Reader) error { return mine }); err != mine {
		t.Errorf("error %v, want the caller's as it is", err)
	}
}

func testMany(t *testing.T, s store.Store) {
	var many []policy.Entry
	for i := range 2000 {
		many = append(many, Entry(i))
	}
	commit(t, s, store.Batch{Put: many})
	check(t, s, many...)
	var keys []policy.Key
	for _, e := range many[:1500] {
		keys = append(keys, e.Key())
	}
	commit(t, s, store.Batch{Delete: keys})
	check(t, s, slices.Clone(many[1500:])...)
}

func testReopen(t *testing.T, open func(t *testing.T, dir string) store.Store) {
	dir := t.TempDir()
	s := open(t, dir)
	revision := commit(t, s, store.Batch{Put: []policy.Entry{Entry(1), Entry(2)}, PutDocs: []store.Doc{{Collection: "c", Name: "n", Data: []byte("x")}}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	if now := check(t, s, Entry(1), Entry(2)); now != revision {
		t.Errorf("revision %d, was %d", now, revision)
	}
	if data, found, err := store.GetDoc(t.Context(), s, "c", "n"); err != nil || !found || string(data) != "x" {
		t.Errorf("document %q, %v, %v", data, found, err)
	}
}
