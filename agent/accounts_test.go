package agent

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/synward/synward/agent/control"
)

// TestAccountsAtOnce: of many accounts all are written, or none.
func TestAccountsAtOnce(t *testing.T) {
	a, _ := newTestAgent(t)
	post := func(accs ...control.Account) error {
		b, err := json.Marshal(control.Accounts{Accounts: accs})
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.putAccounts(httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/accounts", strings.NewReader(string(b))))
		return err
	}
	stored := func() map[string]control.Account {
		ans, err := a.listAccounts(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/accounts", nil))
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]control.Account{}
		for _, acc := range ans.(control.Accounts).Accounts {
			m[acc.Name] = acc
		}
		return m
	}
	doc := func(s string) json.RawMessage { return json.RawMessage(`{"name":"` + s + `"}`) }
	if err := post(control.Account{Name: "a", Doc: doc("1")}, control.Account{Name: "b", Doc: doc("2")}); err != nil {
		t.Fatal(err)
	}
	tag := stored()["a"].ETag
	for name, bad := range map[string]control.Account{
		"there already":     {Name: "b", Doc: doc("3")},
		"changed meanwhile": {Name: "b", ETag: `"x"`, Doc: doc("3")},
		"not there":         {Name: "z", ETag: tag, Doc: doc("3")},
		"no name":           {Doc: doc("3")},
		"no document":       {Name: "z"},
		"twice":             {Name: "new", Doc: doc("3")},
	} {
		if err := post(control.Account{Name: "new", Doc: doc("3")}, control.Account{Name: "a", ETag: tag, Doc: doc("3")}, bad); err == nil {
			t.Errorf("%s: no error", name)
		}
		if m := stored(); len(m) != 2 || m["a"].ETag != tag {
			t.Fatalf("%s: some are written: %v", name, m)
		}
	}
	if err := post(control.Account{Name: "new", Doc: doc("3")}, control.Account{Name: "a", ETag: tag, Doc: doc("4")}); err != nil {
		t.Error(err)
	}
	if m := stored(); len(m) != 3 || string(m["a"].Doc) != `{"name":"4"}` {
		t.Errorf("stored are %v", m)
	}
}
