package agent

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synward/synward/agent/policy"
)

// What history keeps of a change comes back as it was, also what the first
// versions wrote as JSON; what is cut is an error.
func TestHistoryKeepsWhatAChangeDid(t *testing.T) {
	entry := func(prefix, note string) policy.Entry {
		return policy.Entry{Action: policy.Allow, Origin: policy.Operator, Prefix: netip.MustParsePrefix(prefix), Note: note,
			By: "uid 0", At: time.Date(2026, 7, 1, 12, 0, 0, 7, time.UTC)}
	}
	want := done{
		Changes: policy.Changes{
			Added:   []policy.Entry{entry("192.0.2.0/24", "a"), entry("2001:db8::/32", "")},
			Changed: []policy.Changed{{Old: entry("10.0.0.0/8", "b"), New: entry("10.0.0.0/8", "c")}},
			Removed: []policy.Entry{entry("198.51.100.7/32", "d")},
		},
		Born: []policy.Key{{Origin: policy.Feed, Feed: "spam", Action: policy.Deny}},
		Docs: []docChange{{Collection: "feeds", Name: "spam", Now: []byte("x")}},
	}
	data, err := pack(want)
	if err != nil {
		t.Fatal(err)
	}
	var old bytes.Buffer
	z := gzip.NewWriter(&old)
	if err := json.NewEncoder(z).Encode(want); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	same := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	for name, data := range map[string][]byte{"binary": data, "JSON": old.Bytes()} {
		got, err := unpack(data)
		if diff := cmp.Diff(want, got, same); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
	for n := range data {
		if _, err := unpack(data[:n]); err == nil {
			t.Fatalf("read though only %d of %d bytes are there", n, len(data))
		}
	}
}
