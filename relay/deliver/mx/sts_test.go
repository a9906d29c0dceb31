package mx

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/synward/synward/relay/deliver"
)

// web is a policy host that a test plays.
type web struct {
	mu      sync.Mutex
	policy  string // empty: 404
	kind    string
	fetched int
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fetched++
	resp := &http.Response{StatusCode: 200, Status: "200 OK", Header: http.Header{"Content-Type": {w.kind}}, Body: io.NopCloser(strings.NewReader(w.policy)), Request: r}
	if w.policy == "" || r.URL.String() != "https://mta-sts.two.test/.well-known/mta-sts.txt" {
		resp.StatusCode, resp.Status = 404, "404 Not Found"
	}
	return resp, nil
}

func (w *web) set(policy string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.policy = policy
}

func (w *web) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fetched
}

const enforce = "version: STSv1\r\nmode: enforce\r\nmx: *.two.test\r\nmax_age: 86400\r\n"

func stsRouter(t *testing.T, now func() time.Time) (*Router, *zone, *web) {
	z := newZone(t, records+`_mta-sts.two.test. TXT "v=STSv1; id=1;"`)
	w := &web{policy: enforce, kind: "text/plain; charset=utf-8"}
	res, err := NewResolver([]string{z.serve(t)}, now)
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Resolver: res, Now: now, NoIPv6: true, NoDANE: true, Client: &http.Client{Transport: w}}), z, w
}

func TestSTSEnforces(t *testing.T) {
	const secured = "mx1.two.test[192.0.2.1] required, mx1.two.test[192.0.2.2] required, mx2.two.test[192.0.2.3] required"
	unsecured := strings.ReplaceAll(secured, "required", "opportunistic")
	for name, tc := range map[string]struct{ policy, kind, want string }{
		"enforce":              {enforce, "text/plain", secured},
		"one listed":           {strings.Replace(enforce, "*.two.test", "mx2.two.test", 1), "text/plain", "mx2.two.test[192.0.2.3] required"},
		"none listed":          {strings.Replace(enforce, "*.two.test", "*.example", 1), "text/plain", "451 4.7.5"},
		"a star is one label":  {strings.Replace(enforce, "*.two.test", "*.test", 1), "text/plain", "451 4.7.5"},
		"testing":              {strings.Replace(enforce, "enforce", "testing", 1), "text/plain", unsecured},
		"testing, none listed": {strings.NewReplacer("enforce", "testing", "two", "x").Replace(enforce), "text/plain", unsecured},
		"none":                 {"version: STSv1\nmode: none\nmax_age: 1\n", "text/plain", unsecured},
		"no policy":            {"", "text/plain", unsecured},
		"not text":             {enforce, "text/html", unsecured},
		"bad mode":             {strings.Replace(enforce, "enforce", "maybe", 1), "text/plain", unsecured},
		"bad age":              {strings.Replace(enforce, "86400", "-1", 1), "text/plain", unsecured},
		"bad version":          {strings.Replace(enforce, "STSv1", "STSv2", 1), "text/plain", unsecured},
	} {
		t.Run(name, func(t *testing.T) {
			r, _, w := stsRouter(t, time.Now)
			w.policy, w.kind = tc.policy, tc.kind
			for range 2 {
				if got := told(r.Route(t.Context(), "two.test")); strings.ReplaceAll(got, ":25", "") != tc.want {
					t.Errorf("got %s\nwant %s", got, tc.want)
				}
			}
			if w.count() != 1 {
				t.Errorf("fetched %d times", w.count())
			}
		})
	}
}

// Whoever can suppress the record or the policy host must not undo what was
// learnt before.
func TestSTSPolicyOutlivesItsSource(t *testing.T) {
	var mu sync.Mutex
	at := time.Now()
	now := func() time.Time { mu.Lock(); defer mu.Unlock(); return at }
	later := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); at = at.Add(d) }
	r, z, w := stsRouter(t, now)
	mode := func() deliver.TLSMode {
		hops, err := r.Route(t.Context(), "two.test")
		if err != nil {
			t.Fatal(err)
		}
		return hops[0].TLS
	}
	if mode() != deliver.Required {
		t.Fatal("not enforced")
	}
	w.set("")
	z.set(func() { delete(z.rrs, "TXT _mta-sts.two.test.") })
	later(2 * time.Hour)
	if mode() != deliver.Required {
		t.Error("the record is gone, and so is the policy")
	}
	rr := newZone(t, `_mta-sts.two.test. TXT "v=STSv1; id=2;"`)
	z.set(func() { z.rrs["TXT _mta-sts.two.test."] = rr.rrs["TXT _mta-sts.two.test."] })
	later(2 * time.Hour)
	if mode() != deliver.Required {
		t.Error("the new policy cannot be had, and the old one is gone")
	}
	w.set(strings.Replace(enforce, "enforce", "none", 1))
	later(2 * time.Hour)
	if mode() != deliver.Opportunistic {
		t.Error("the new policy does not count")
	}
	w.set("")
	later(25 * time.Hour)
	if mode() != deliver.Opportunistic {
		t.Error("a policy counts beyond its time")
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add(enforce)
	f.Add("version: STSv1\nmode: none\nmax_age: 0")
	f.Fuzz(func(t *testing.T, s string) {
		p, age, err := parsePolicy(strings.NewReader(s))
		if err == nil && (age < 0 || age > maxAge || len(p.mx) > maxMXNames || p.mode != modeNone && len(p.mx) == 0) {
			t.Errorf("%q: %+v %v", s, p, age)
		}
	})
}
