package journal_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synward/synward/agent/journal"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func kind(addr string, passed bool) journal.Kind {
	a := netip.MustParseAddr(addr)
	return journal.Kind{Source: netip.PrefixFrom(a, a.BitLen()), Port: 25, Passed: passed, Reason: "x"}
}

func openAttempts(t *testing.T, dir string, most int, now time.Time) *journal.Attempts {
	t.Helper()
	a, err := journal.OpenAttempts(dir, 3, most, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func add(t *testing.T, a *journal.Attempts, k journal.Kind, n uint64, at time.Time) {
	t.Helper()
	if err := a.Add(k, n, at); err != nil {
		t.Fatal(err)
	}
}

func TestAttemptsAddUpOverDaysAndRestarts(t *testing.T) {
	dir := t.TempDir()
	a := openAttempts(t, dir, 10, noon)
	add(t, a, kind("192.0.2.1", true), 2, noon)
	add(t, a, kind("192.0.2.1", true), 3, noon.Add(time.Hour))
	if err := a.Save(noon); err != nil {
		t.Fatal(err)
	}
	a = openAttempts(t, dir, 10, noon.Add(2*time.Hour))
	add(t, a, kind("192.0.2.1", true), 1, noon.Add(2*time.Hour))
	add(t, a, kind("192.0.2.1", false), 7, noon.Add(24*time.Hour)) // the next day
	rows, err := a.Since(noon.Add(-time.Hour))
	if err != nil || len(rows) != 2 {
		t.Fatalf("%v, %v", rows, err)
	}
	if r := rows[1]; r.Count != 6 || !r.First.Equal(noon) || !r.Last.Equal(noon.Add(2*time.Hour)) {
		t.Errorf("passed: %+v", r)
	}
	if rows, err = a.Since(noon.Add(3 * time.Hour)); err != nil || len(rows) != 1 || rows[0].Count != 7 {
		t.Errorf("later: %v, %v", rows, err)
	}
	later := noon.AddDate(0, 0, 4)
	add(t, a, kind("192.0.2.2", false), 1, later)
	if err := a.Save(later); err != nil {
		t.Fatal(err)
	}
	if rows, err = a.Since(time.Time{}); err != nil || len(rows) != 1 {
		t.Errorf("days that are too old: %v, %v", rows, err)
	}
}

func TestStrangersDoNotPushOutSourcesThatPassed(t *testing.T) {
	a := openAttempts(t, t.TempDir(), 20, noon)
	add(t, a, kind("192.0.2.1", true), 1, noon)
	add(t, a, kind("198.51.100.1", false), 1000, noon)
	for i := range 5000 {
		add(t, a, kind(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String(), false), 1, noon)
	}
	rows, err := a.Since(noon)
	if err != nil || len(rows) != 21 {
		t.Fatalf("%d kinds, %v, want 20 that were dropped and one that passed", len(rows), err)
	}
	if rows[0].Count != 1000 || a.Lost() != 5001-20 {
		t.Errorf("most: %+v, lost %d", rows[0], a.Lost())
	}
}

func TestDamagedDayIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	a := openAttempts(t, dir, 10, noon)
	add(t, a, kind("192.0.2.1", true), 1, noon)
	if err := a.Save(noon); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "attempts-*"))
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], data[:len(data)-9], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := journal.OpenAttempts(dir, 3, 10, noon); err == nil {
		t.Error("a cut file is read as whole")
	}
	b := openAttempts(t, dir, 10, noon.AddDate(0, 0, 1))
	add(t, b, kind("192.0.2.2", true), 1, noon.AddDate(0, 0, 1))
	rows, err := b.Since(noon)
	if err == nil || len(rows) == 0 || rows[len(rows)-1].Source.Addr() != netip.MustParseAddr("192.0.2.2") {
		t.Errorf("%v, %v; want today's, and an error for the other day", rows, err)
	}
}

func TestUsesAddUpOverTheKernelsRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uses.json")
	all := func(uint64) bool { return true }
	u, err := journal.OpenUses(path, noon)
	if err != nil {
		t.Fatal(err)
	}
	u.Hits(map[uint64]journal.Use{100: {Count: 5, Last: noon}, 101: {Count: 1, Last: noon}}, all)
	first := u.Sources([]journal.Reading{{Entry: 100, Source: netip.MustParsePrefix("192.0.2.1/32"), Admitted: 4}})
	if len(first) != 1 || first[0].Admitted != 4 {
		t.Errorf("sources %v", first)
	}
	if err := u.Save(); err != nil {
		t.Fatal(err)
	}
	if u, err = journal.OpenUses(path, noon.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	u.Hits(map[uint64]journal.Use{100: {Count: 7, Last: noon.Add(time.Hour)}}, all) // the agent anew
	u.Hits(map[uint64]journal.Use{100: {Count: 2, Last: noon.Add(2 * time.Hour)}}, func(id uint64) bool { return id == 100 })
	if got := u.Of(100); got.Count != 9 || !got.Last.Equal(noon.Add(2*time.Hour)) {
		t.Errorf("entry 100: %+v, want 9", got)
	}
	if got := u.Of(101); got.Count != 0 {
		t.Errorf("an entry that is no more: %+v", got)
	}
	if again := u.Sources([]journal.Reading{{Entry: 100, Source: netip.MustParsePrefix("192.0.2.1/32"), Admitted: 4}}); len(again) != 0 {
		t.Errorf("counted twice: %v", again)
	}
	if !u.Since().Equal(noon) {
		t.Errorf("known since %s", u.Since())
	}
}

func TestUsesAreKnownSinceTheFirstAgentThoughNothingWasUsed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uses.json")
	for _, now := range []time.Time{noon, noon.Add(time.Hour)} {
		u, err := journal.OpenUses(path, now)
		if err != nil || !u.Since().Equal(noon) {
			t.Errorf("known since %s, %v, want %s", u.Since(), err, noon)
		}
		if err := u.Save(); err != nil {
			t.Fatal(err)
		}
	}
	if u, err := journal.OpenUses(path, noon.Add(-time.Hour)); err != nil || u.Since().After(noon.Add(-time.Hour)) {
		t.Errorf("known since the future, %s, %v", u.Since(), err)
	}
}

// lines reads a log.
func lines(t *testing.T, l *journal.Log) (out []string) {
	t.Helper()
	s, err := l.Snapshot(func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Each(func(m json.RawMessage) error { out = append(out, string(m)); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func openLog(t *testing.T, dir string, most int64) *journal.Log {
	t.Helper()
	l, err := journal.OpenLog(dir, "events", most)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestLogIsBoundedAndKeepsTheNewest(t *testing.T) {
	dir := t.TempDir()
	for start := 0; start < 2000; start += 500 { // four agents, one after another
		l := openLog(t, dir, 8000)
		for i := range 500 {
			if err := l.Append(fmt.Sprintf("record %06d", start+i)); err != nil {
				t.Fatal(err)
			}
		}
		l.Close()
	}
	got := lines(t, openLog(t, dir, 8000))
	if n := len(got); n < 8000*6/8/16 || n > 8000/16 || got[n-1] != `"record 001999"` {
		t.Errorf("%d records, the last %s", n, got[n-1])
	}
	for i := range got[1:] {
		if got[i] >= got[i+1] {
			t.Fatalf("%s before %s", got[i], got[i+1])
		}
	}
}

func TestHalfALineOfAKilledAgentIsCutOff(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, 1<<20)
	if err := l.Append("one"); err != nil {
		t.Fatal(err)
	}
	l.Close()
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	f, err := os.OpenFile(files[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`"tw`)
	f.Close()
	l = openLog(t, dir, 1<<20)
	if got := lines(t, l); len(got) != 1 {
		t.Errorf("read %v", got)
	}
	if err := l.Append("three"); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(lines(t, l), " "); got != `"one" "three"` {
		t.Errorf("read %s", got)
	}
}

func TestFullDiskLosesRecordsAndNothingElse(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root: it mounts a tmpfs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	l, a := openLog(t, dir, 1<<20), openAttempts(t, dir, 10, noon)
	n, failed := 0, 0
	for range 100 {
		if err := l.Append(strings.Repeat("x", 1500)); err != nil {
			failed++
			continue
		}
		n++
	}
	add(t, a, kind("192.0.2.1", true), 1, noon)
	if err := a.Save(noon); failed == 0 || err == nil {
		t.Fatalf("the disk is not full: %d failed, %v", failed, err)
	}
	if got := lines(t, l); len(got) != n {
		t.Errorf("%d records, want the %d that were taken", len(got), n)
	}
	if rows, err := a.Since(noon); err != nil || len(rows) != 1 {
		t.Errorf("attempts %v, %v", rows, err)
	}
}
