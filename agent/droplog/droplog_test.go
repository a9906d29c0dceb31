package droplog_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/synward/synward/agent/droplog"
)

type line struct {
	Msg, Source, Reason         string
	Port                        uint16
	Attempts, Suppressed, Kinds uint64
	Observed                    bool
}

func lines(t *testing.T, out *bytes.Buffer) (all []line) {
	t.Helper()
	for _, text := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		all = append(all, l)
	}
	return all
}

func TestOneLineForASource(t *testing.T) {
	var out bytes.Buffer
	l := droplog.New(slog.New(slog.NewJSONHandler(&out, nil)))
	one := droplog.Drop{Source: netip.MustParsePrefix("192.0.2.1/32"), Port: 25, Reason: "no-entry"}
	net := droplog.Drop{Source: netip.MustParsePrefix("2001:db8::/64"), Port: 25, Reason: "denied", Observed: true}
	for range 3 {
		l.Add(one, 2, 0)
	}
	l.Add(net, 7, 0)
	l.Flush()
	got := lines(t, &out)
	want := []line{
		{Msg: "attempts dropped", Source: "2001:db8::/64", Port: 25, Reason: "denied", Attempts: 7, Observed: true},
		{Msg: "attempts dropped", Source: "192.0.2.1", Port: 25, Reason: "no-entry", Attempts: 6},
	}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%+v, want %+v", got, want)
	}
	out.Reset()
	if l.Flush(); out.Len() != 0 {
		t.Errorf("a period without drops wrote %s", out.String())
	}
}

func TestAFloodWritesFewLinesAndLosesNoAttempt(t *testing.T) {
	var out bytes.Buffer
	l := droplog.New(slog.New(slog.NewJSONHandler(&out, nil)))
	const sources = 10_000
	for i := range sources {
		addr := netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})
		l.Add(droplog.Drop{Source: netip.PrefixFrom(addr, 32), Port: 25, Reason: "no-entry"}, 1, 1)
	}
	l.Flush()
	got := lines(t, &out)
	var attempts uint64
	for _, g := range got {
		attempts += g.Attempts
	}
	last := got[len(got)-1]
	if len(got) != 21 || attempts != sources || last.Msg != "more attempts dropped" || last.Suppressed != sources {
		t.Errorf("%d lines of %d attempts, the last %+v", len(got), attempts, last)
	}
}
