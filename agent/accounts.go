package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/store"
)

// accounts is the store's collection of the relay's accounts.
const accounts = "accounts"

// maxAccount bounds one account's document, in bytes.
const maxAccount = 64 << 10

// listAccounts answers GET /v1/accounts.
func (a *Agent) listAccounts(r *http.Request) (any, error) {
	docs, _, err := store.Docs(r.Context(), a.store, accounts)
	if err != nil {
		return nil, err
	}
	ans := control.Accounts{Accounts: []control.Account{}}
	for _, d := range docs {
		ans.Accounts = append(ans.Accounts, control.Account{Name: d.Name, ETag: etag(d.Data), Doc: d.Data})
	}
	return ans, nil
}

func etag(doc []byte) string {
	sum := sha256.Sum256(doc)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// putAccount answers PUT /v1/accounts/{name}. If-None-Match: * makes it fail
// where there is one, If-Match where it is not the one that the caller read.
func (a *Agent) putAccount(r *http.Request) (any, error) {
	name := r.PathValue("name")
	doc, err := io.ReadAll(io.LimitReader(r.Body, maxAccount+1))
	switch {
	case err != nil:
		return nil, control.Errorf(http.StatusBadRequest, "read request: %w", err)
	case len(doc) > maxAccount || !json.Valid(doc):
		return nil, control.Errorf(http.StatusBadRequest, "account %s: not a JSON document of at most %d bytes", name, maxAccount)
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	was, there, err := store.GetDoc(r.Context(), a.store, accounts, name)
	if err != nil {
		return nil, err
	}
	switch match := r.Header.Get("If-Match"); {
	case there && r.Header.Get("If-None-Match") == "*":
		return nil, control.Errorf(http.StatusConflict, "user %s is there already; change it with: synward user passwd %s", name, name)
	case match != "" && !there:
		return nil, control.Errorf(http.StatusNotFound, "no user %s", name)
	case match != "" && match != etag(was):
		return nil, control.Errorf(http.StatusConflict, "user %s has been changed meanwhile; try again", name)
	case there && slices.Equal(was, doc):
		return control.AccountChange{}, nil
	}
	return a.changeAccount(r.Context(), name, was, there, doc)
}

// deleteAccount answers DELETE /v1/accounts/{name}.
func (a *Agent) deleteAccount(r *http.Request) (any, error) {
	name := r.PathValue("name")
	a.changing.Lock()
	defer a.changing.Unlock()
	was, there, err := store.GetDoc(r.Context(), a.store, accounts, name)
	if err != nil || !there {
		return control.AccountChange{}, err
	}
	return a.changeAccount(r.Context(), name, was, true, nil)
}

// maxAccounts bounds the body of one request with many accounts, in bytes.
const maxAccounts = 64 << 20

// putAccounts answers POST /v1/accounts: all are written, or none.
func (a *Agent) putAccounts(r *http.Request) (any, error) {
	var req control.Accounts
	body := http.MaxBytesReader(nil, r.Body, maxAccounts)
	if err := json.NewDecoder(body).Decode(&req); err != nil {
		return nil, control.Errorf(http.StatusBadRequest, "read request: %w", err)
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	var put, was store.Batch
	seen := map[string]bool{}
	for _, acc := range req.Accounts {
		old, there, err := store.GetDoc(r.Context(), a.store, accounts, acc.Name)
		if err != nil {
			return nil, err
		}
		switch {
		case acc.Name == "" || seen[acc.Name] || len(acc.Doc) == 0 || string(acc.Doc) == "null" || len(acc.Doc) > maxAccount:
			return nil, control.Errorf(http.StatusBadRequest, "account %q: there twice, without a name, or not a document of 1 to %d bytes", acc.Name, maxAccount)
		case acc.ETag == "" && there:
			return nil, control.Errorf(http.StatusConflict, "nothing changed: user %s is there already", acc.Name)
		case acc.ETag != "" && (!there || acc.ETag != etag(old)):
			return nil, control.Errorf(http.StatusConflict, "nothing changed: user %s has been changed meanwhile; try again", acc.Name)
		}
		seen[acc.Name] = true
		addAccount(&put, acc.Name, acc.Doc)
		addAccount(&was, acc.Name, old)
	}
	if len(put.PutDocs) == 0 {
		return control.AccountChange{}, nil
	}
	return a.changeAccounts(r.Context(), put, was)
}

// changeAccount writes one document; nil deletes it.
func (a *Agent) changeAccount(ctx context.Context, name string, was []byte, there bool, doc []byte) (any, error) {
	if !there {
		was = nil
	}
	return a.changeAccounts(ctx, accountBatch(name, doc), accountBatch(name, was))
}

// changeAccounts commits documents at once and has the relay take them over. What
// it refuses is put back.
func (a *Agent) changeAccounts(ctx context.Context, put, was store.Batch) (any, error) {
	if _, err := a.store.Commit(ctx, put); err != nil {
		return nil, fmt.Errorf("nothing changed: write the store: %w", err)
	}
	ans := control.AccountChange{Changed: true}
	switch {
	case a.relay == nil:
		ans.Warning = "stored; the relay is not enabled ([relay] enabled = true)"
	case !a.relay.State().Running:
		ans.Warning = "stored; in force once the relay runs"
	default:
		err := a.relay.Push(ctx)
		if err == nil {
			break
		}
		ctx = context.WithoutCancel(ctx)
		if _, uerr := a.store.Commit(ctx, was); uerr != nil {
			return nil, fmt.Errorf("%w, and the store could not be put back: %w", err, uerr)
		}
		if perr := a.relay.Push(ctx); perr != nil {
			a.log.Error("the relay has refused the settings that it had", "error", perr)
		}
		return nil, fmt.Errorf("nothing changed: %w", err)
	}
	return ans, nil
}

func accountBatch(name string, doc []byte) (b store.Batch) {
	addAccount(&b, name, doc)
	return b
}

// addAccount puts one document into a batch; nil deletes it.
func addAccount(b *store.Batch, name string, doc []byte) {
	d := store.Doc{Collection: accounts, Name: name, Data: doc}
	if doc == nil {
		b.DeleteDocs = append(b.DeleteDocs, d)
	} else {
		b.PutDocs = append(b.PutDocs, d)
	}
}
