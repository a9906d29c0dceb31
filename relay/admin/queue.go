package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/synward/synward/relay/queue"
)

// Queue is what can be asked of the queue.
type Queue interface {
	List() []queue.Item
	Get(id string) (queue.Item, error)
}

// Hands change single items of the queue.
type Hands struct {
	Retry, Hold, Release, Delete func(id string) error
}

// item is a queued message with where it goes.
type item struct {
	queue.Item
	NextHops []string `json:"next_hops,omitempty"`
}

// changed answers a change of items.
type changed struct {
	Done   string   `json:"done"` // retried, held, released or deleted
	Items  []string `json:"items"`
	DryRun bool     `json:"dry_run"`
}

func (o Options) queueRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/queue", o.getQueue)
	mux.HandleFunc("GET /v1/queue/{id}", o.getItem)
	mux.HandleFunc("POST /v1/queue/{id}/retry", o.change("retried", o.Hands.Retry))
	mux.HandleFunc("POST /v1/queue/{id}/hold", o.change("held", o.Hands.Hold))
	mux.HandleFunc("POST /v1/queue/{id}/release", o.change("released", o.Hands.Release))
	mux.HandleFunc("DELETE /v1/queue/{id}", o.change("deleted", o.Hands.Delete))
}

func (o Options) getQueue(w http.ResponseWriter, r *http.Request) {
	items, err := o.pick(r.URL.Query())
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	answer(w, items)
}

func (o Options) getItem(w http.ResponseWriter, r *http.Request) {
	it, err := o.Queue.Get(r.PathValue("id"))
	if err != nil {
		refuseItem(w, r, err)
		return
	}
	answer(w, item{it, o.hops(it)})
}

// change does f to one item, or with the id "all" to every one that the query
// picks. With ?dry_run=1 it only says to which.
func (o Options) change(done string, f func(id string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query, id := r.URL.Query(), r.PathValue("id")
		ans := changed{Done: done, Items: []string{}, DryRun: query.Get("dry_run") == "1"}
		all := id == "all"
		if !all {
			it, err := o.Queue.Get(id)
			if err == nil && !ans.DryRun {
				err = f(it.ID)
			}
			if err != nil {
				refuseItem(w, r, err)
				return
			}
			ans.Items = append(ans.Items, it.ID)
			answer(w, ans)
			return
		}
		items, err := o.pick(query)
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		for _, it := range items {
			if !ans.DryRun {
				switch err := f(it.ID); {
				case errors.Is(err, queue.ErrNotFound): // it has left meanwhile
					continue
				case err != nil:
					refuse(w, http.StatusInternalServerError, fmt.Errorf("%s %d of %d items, then: %w", done, len(ans.Items), len(items), err))
					return
				}
			}
			ans.Items = append(ans.Items, it.ID)
		}
		answer(w, ans)
	}
}

// pick returns the items that a query asks for: older (a duration), sender (an
// address, a domain, or <> for the null sender), recipient (an address or a
// domain), next_hop (host, host:port, or the domain that goes by MX), held.
func (o Options) pick(query url.Values) ([]item, error) {
	var older time.Duration
	for key, values := range query {
		var err error
		switch key {
		case "older":
			if older, err = time.ParseDuration(values[0]); err != nil || older < 0 {
				return nil, fmt.Errorf("older=%q is not a duration such as 90m or 48h", values[0])
			}
		case "held", "dry_run":
			if values[0] != "0" && values[0] != "1" {
				return nil, fmt.Errorf("%s=%q is neither 0 nor 1", key, values[0])
			}
		case "sender", "recipient", "next_hop":
		default:
			return nil, fmt.Errorf("no filter %q: use older, sender, recipient, next_hop or held", key)
		}
	}
	sender, rcpt, hop, held := query.Get("sender"), query.Get("recipient"), query.Get("next_hop"), query.Get("held")
	now := time.Now()
	picked := []item{}
	for _, it := range o.Queue.List() {
		fits := (older == 0 || now.Sub(it.Received) >= older) && (sender == "" || isAddress(it.From, sender)) &&
			(held == "" || it.Held == (held == "1")) &&
			(rcpt == "" || slices.ContainsFunc(it.Pending(), func(i int) bool { return isAddress(it.Rcpts[i].Addr, rcpt) }))
		if !fits {
			continue
		}
		hops := o.hops(it)
		if hop == "" || slices.ContainsFunc(hops, func(h string) bool { return isHop(h, hop) }) {
			picked = append(picked, item{it, hops})
		}
	}
	return picked, nil
}

// hops names where the recipients of an item that have not ended go.
func (o Options) hops(it queue.Item) []string {
	if o.NextHops == nil {
		return nil
	}
	var hops []string
	for _, i := range it.Pending() {
		addr := it.Rcpts[i].Addr
		for _, h := range o.NextHops(addr[strings.LastIndexByte(addr, '@')+1:]) {
			if !slices.Contains(hops, h) {
				hops = append(hops, h)
			}
		}
	}
	return hops
}

// isAddress says whether addr is the address asked for, or in the domain.
func isAddress(addr, want string) bool {
	if want == "<>" {
		return addr == ""
	}
	at := strings.LastIndexByte(want, '@')
	if at > 0 {
		return strings.EqualFold(addr, want)
	}
	return addr != "" && strings.EqualFold(addr[strings.LastIndexByte(addr, '@')+1:], want[at+1:])
}

// isHop says whether a hop, host:port or a domain, is the one asked for.
func isHop(hop, want string) bool {
	if strings.EqualFold(hop, want) {
		return true
	}
	i := strings.LastIndexByte(hop, ':')
	return i > 0 && strings.EqualFold(strings.Trim(hop[:i], "[]"), strings.Trim(want, "[]"))
}

func refuseItem(w http.ResponseWriter, r *http.Request, err error) {
	code := http.StatusInternalServerError
	if errors.Is(err, queue.ErrNotFound) {
		code = http.StatusNotFound
		err = fmt.Errorf("no item %q in the queue: synward queue list names them", r.PathValue("id"))
	}
	refuse(w, code, err)
}
