// Package admin is the relay's side of the admin socket: HTTP with JSON under
// /v1/, for the agent alone (the socket is root's, mode 0600). It changes
// nothing by itself but hands on to the front and the queue.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/queue"
	"github.com/synward/synward/relay/sandbox"
)

// Front is the SMTP front.
type Front interface {
	Apply(relay.Settings) error
	Status() relay.Status
	Denied(byCount bool) relay.DeniedList
}

// Options are what the server is made of.
type Options struct {
	Front   Front
	Queue   Queue
	Hands   Hands
	Quotas  Quotas
	Limits  Limits
	Stats   func() queue.Stats
	Events  *relay.Events
	Sandbox sandbox.Report
	Version string
	// NextHops names where mail for a domain goes, for people; nil: unknown.
	NextHops func(domain string) []string
}

// Status answers GET /v1/status.
type Status struct {
	Version string `json:"version"`
	relay.Status
	Queue   queue.Stats    `json:"queue"`
	Sandbox sandbox.Report `json:"sandbox"`
	Events  uint64         `json:"events"` // number of the newest event
}

// maxSettings bounds the document of PUT /v1/settings, in bytes.
const maxSettings = 64 << 20

// Handler serves /v1/.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/settings", o.putSettings)
	mux.HandleFunc("GET /v1/status", o.getStatus)
	mux.HandleFunc("GET /v1/events", o.getEvents)
	mux.HandleFunc("GET /v1/denied", func(w http.ResponseWriter, r *http.Request) {
		answer(w, o.Front.Denied(r.URL.Query().Get("by") == "count"))
	})
	o.queueRoutes(mux)
	mux.HandleFunc("GET /v1/quota", o.getQuota)
	mux.HandleFunc("POST /v1/quota/reset", o.resetQuota)
	return mux
}

// Run serves h on l until ctx ends, and then what is under way for a second.
func Run(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve the admin socket: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		srv.Close()
	}
	return nil
}

func (o Options) putSettings(w http.ResponseWriter, r *http.Request) {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSettings))
	dec.DisallowUnknownFields()
	var s relay.Settings
	err := dec.Decode(&s)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one document")
		}
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("read settings: %w", err))
		return
	}
	if err := o.Front.Apply(s); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	answer(w, map[string]string{"settings_hash": s.Hash()})
}

func (o Options) getStatus(w http.ResponseWriter, _ *http.Request) {
	answer(w, Status{Version: o.Version, Status: o.Front.Status(), Queue: o.Stats(), Sandbox: o.Sandbox, Events: o.Events.Last()})
}

// getEvents writes the events after number ?since as JSON lines: those that
// are held, or with ?follow=1 also all that come. Without since a follower
// gets the new ones only.
func (o Options) getEvents(w http.ResponseWriter, r *http.Request) {
	follow := r.URL.Query().Get("follow") == "1"
	var since uint64
	if v := r.URL.Query().Get("since"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			refuse(w, http.StatusBadRequest, fmt.Errorf("since=%q is not the number of an event", v))
			return
		}
		since = n
	} else if follow {
		since = o.Events.Last()
	}
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	out := json.NewEncoder(w)
	write := func(events []relay.Event, lost uint64) error {
		if lost > 0 {
			e := relay.Event{Time: time.Now(), Kind: relay.Lost, Message: fmt.Sprintf("%d events", lost)}
			if err := out.Encode(e); err != nil {
				return err
			}
		}
		for _, e := range events {
			if err := out.Encode(e); err != nil {
				return err
			}
		}
		return flush.Flush()
	}
	if !follow {
		events, lost, _ := o.Events.Since(since)
		_ = write(events, lost) // the reader has gone: nobody to tell
		return
	}
	if flush.Flush() != nil {
		return
	}
	_ = o.Events.Follow(r.Context(), since, write)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the reader has gone: nobody to tell
}

// refuse answers with one line of text.
func refuse(w http.ResponseWriter, code int, err error) {
	http.Error(w, strings.ReplaceAll(err.Error(), "\n", "; "), code)
}
