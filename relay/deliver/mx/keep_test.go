package mx

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/relay/deliver"
)

// started is a router of a new process, with the file of an earlier one.
func started(t *testing.T, file string, z *zone, w *web, now func() time.Time) func() deliver.TLSMode {
	t.Helper()
	res, err := NewResolver([]string{z.serve(t)}, now)
	if err != nil {
		t.Fatal(err)
	}
	r := New(Options{Resolver: res, Now: now, NoIPv6: true, NoDANE: true, Client: &http.Client{Transport: w}, Policies: file})
	return func() deliver.TLSMode {
		t.Helper()
		hops, err := r.Route(t.Context(), "two.test")
		if err != nil {
			t.Fatal(err)
		}
		return hops[0].TLS
	}
}

// TestSTSPolicyOutlivesTheProcess: a restart does not undo what was learnt, for
// as long as the policy says.
func TestSTSPolicyOutlivesTheProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mta-sts.json")
	const record = `_mta-sts.two.test. TXT "v=STSv1; id=1;"`
	w := &web{policy: enforce, kind: "text/plain"}
	if mode := started(t, file, newZone(t, records+record), w, time.Now)(); mode != deliver.Required {
		t.Fatal("not enforced")
	}
	b, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(b), "two.test") {
		t.Fatalf("kept is %q, %v", b, err)
	}
	if mode := started(t, file, newZone(t, records+record), w, time.Now)(); mode != deliver.Required || w.count() != 1 {
		t.Errorf("%s, fetched %d times", mode, w.count())
	}
	w.set("")
	if mode := started(t, file, newZone(t, records), w, time.Now)(); mode != deliver.Required {
		t.Error("the record is gone, and with a restart the policy too")
	}
	over := func() time.Time { return time.Now().Add(25 * time.Hour) }
	if mode := started(t, file, newZone(t, records), w, over)(); mode != deliver.Opportunistic {
		t.Error("a policy counts beyond its time")
	}
	for _, text := range []string{"", "{", "[{}]", `[{"domain":"two.test","id":"1","mode":"enforce","until":"2999-01-01T00:00:00Z","mx":["x"]}]`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if mode := started(t, file, newZone(t, records), w, time.Now)(); mode != deliver.Opportunistic {
			t.Errorf("%q is a policy", text)
		}
	}
}
