package agent

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/policy"
	"github.com/synward/synward/agent/store"
)

// derived is an entry of a name, or with feed of a feed.
func derived(name, feed, prefix string, ports ...uint16) policy.Entry {
	e := policy.Entry{Action: policy.Allow, Origin: policy.Operator, Name: name, Feed: feed, Prefix: netip.MustParsePrefix(prefix), Ports: ports}
	if feed != "" {
		e.Origin = policy.Feed
	}
	return e
}

func made(t *testing.T, a *Agent, u Update) control.Changed {
	t.Helper()
	if u.Command != "refresh" {
		root := uint32(0)
		u.UID = &root
	}
	ans, err := a.Change(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	return ans
}

func TestUndoTakesANameWhatItStandsForNow(t *testing.T) {
	const name = "office.example"
	a, k := newTestAgent(t)
	changed(t, a.addEntries, allow("192.0.2.9/32"))
	made(t, a, Update{Command: "allow add", Born: []policy.Key{{Name: name, Action: policy.Allow}},
		Put: []policy.Entry{derived(name, "", "192.0.2.1/32"), derived(name, "", "192.0.2.2/32")}})
	made(t, a, Update{Command: "refresh", By: "name:" + name,
		Put: []policy.Entry{derived(name, "", "192.0.2.3/32")}, Remove: []policy.Key{derived(name, "", "192.0.2.2/32").Key()}})
	ports := made(t, a, Update{Command: "allow add",
		Put: []policy.Entry{derived(name, "", "192.0.2.1/32", 587), derived(name, "", "192.0.2.3/32", 587)}})
	made(t, a, Update{Command: "refresh", By: "name:" + name,
		Put: []policy.Entry{derived(name, "", "192.0.2.4/32", 587)}, Remove: []policy.Key{derived(name, "", "192.0.2.3/32", 587).Key()}})

	if msg := refused(t, a.undoPolicy, control.Undo{Change: 99}, http.StatusNotFound); msg == "" {
		t.Error("no words")
	}
	changed(t, a.undoPolicy, control.Undo{Change: ports.ID}) // what it was added with, for what it is now
	for e := range a.Policy().All() {
		if len(e.Ports) != 0 {
			t.Errorf("%s still has ports %v", e.Prefix, e.Ports)
		}
	}
	if diff := cmp.Diff([]string{"192.0.2.1/32", "192.0.2.4/32", "192.0.2.9/32"}, inForce(k)); diff != "" {
		t.Error(diff)
	}
	undone := changed(t, a.undoPolicy, control.Undo{Change: 2}) // the name, whatever it stands for
	if diff := cmp.Diff([]string{"192.0.2.9/32"}, inForce(k)); diff != "" {
		t.Error(diff)
	}
	changed(t, a.undoPolicy, control.Undo{Change: undone.ID})
	if diff := cmp.Diff([]string{"192.0.2.1/32", "192.0.2.4/32", "192.0.2.9/32"}, inForce(k)); diff != "" {
		t.Error("brought back:", diff)
	}
	changed(t, a.undoPolicy, control.Undo{Change: undone.ID + 1}) // once more: it came with the undoing
	if diff := cmp.Diff([]string{"192.0.2.9/32"}, inForce(k)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(stored(t, a), inForce(k)); diff != "" {
		t.Error("store and kernel:", diff)
	}
}

func TestUndoOfANameThatWasChangedSinceIsAConflict(t *testing.T) {
	const name = "office.example"
	a, _ := newTestAgent(t)
	for i, ports := range [][]uint16{nil, {25}, {587}} {
		u := Update{Command: "allow add", Put: []policy.Entry{derived(name, "", "192.0.2.1/32", ports...)}}
		if i == 0 {
			u.Born = []policy.Key{{Name: name, Action: policy.Allow}}
		}
		made(t, a, u)
	}
	if msg := refused(t, a.undoPolicy, control.Undo{Change: 2}, http.StatusConflict); !strings.Contains(msg, name+" has been changed since") {
		t.Error(msg)
	}
}

func TestUndoBringsAFeedsDocumentBack(t *testing.T) {
	a, k := newTestAgent(t)
	doc := store.Doc{Collection: "feeds", Name: "drop", Data: []byte(`{"name":"drop"}`)}
	there := func() bool {
		docs, err := a.Docs(t.Context(), "feeds")
		if err != nil {
			t.Fatal(err)
		}
		return len(docs) == 1 && string(docs[0].Data) == string(doc.Data)
	}
	feed := policy.Key{Feed: "drop"}
	made(t, a, Update{Command: "feed add", Born: []policy.Key{feed}, PutDocs: []store.Doc{doc}, Put: []policy.Entry{derived("", "drop", "192.0.2.0/24")}})
	made(t, a, Update{Command: "refresh", By: "feed:drop", Put: []policy.Entry{derived("", "drop", "203.0.113.0/24")}})
	changed(t, a.undoPolicy, control.Undo{Change: 1})
	if there() || len(inForce(k)) != 0 {
		t.Errorf("undone, but the document is there: %v, in force %v", there(), inForce(k))
	}
	changed(t, a.undoPolicy, control.Undo{Change: 3})
	if diff := cmp.Diff([]string{"192.0.2.0/24", "203.0.113.0/24"}, inForce(k)); diff != "" || !there() {
		t.Errorf("%s, document there: %v", diff, there())
	}
	var rm Update
	rm.Command, rm.DeleteDocs = "feed remove", []store.Doc{doc}
	for e := range a.Policy().All() {
		rm.Remove = append(rm.Remove, e.Key())
	}
	made(t, a, rm)
	changed(t, a.undoPolicy, control.Undo{})
	if len(inForce(k)) != 2 || !there() {
		t.Errorf("a removal undone: in force %v, document there: %v", inForce(k), there())
	}
}
