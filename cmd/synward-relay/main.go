// Command synward-relay is the relay's own small process: the SMTP front, the
// queue and the delivery. It is started by synward agent as an unprivileged
// user, with its sockets as inherited descriptors, and opens none itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/synward/synward/cmd/logto"
	"github.com/synward/synward/cmd/version"
	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/acme"
	"github.com/synward/synward/relay/admin"
	"github.com/synward/synward/relay/deliver"
	"github.com/synward/synward/relay/queue"
	"github.com/synward/synward/relay/quota"
	"github.com/synward/synward/relay/sandbox"
	"golang.org/x/sync/errgroup"
)

const byHand = `synward-relay is the mail relay of synward. It is started by "synward agent",
which hands it its sockets; by hand there is nothing to start. See: synward agent --help
`

func main() { os.Exit(run(os.Args[1:], os.Getenv, os.Stderr)) }

// run returns the exit status: 0 told to stop, 1 failed, 2 not started as it
// should be.
func run(args []string, getenv func(string) string, stderr io.Writer) int {
	spec, spool := getenv("SYNWARD_LISTENERS"), getenv("SYNWARD_SPOOL")
	if len(args) > 0 || spec == "" || spool == "" {
		fmt.Fprint(stderr, byHand)
		return 2
	}
	form, err := logto.FromEnv(getenv(logto.Env))
	if err != nil {
		fmt.Fprintf(stderr, "synward-relay: %v\n", err)
		return 2
	}
	log, err := form.Open(stderr) // also before the sandbox, which opens no such file any more
	if err != nil {
		fmt.Fprintf(stderr, "synward-relay: %v\n", err)
		return 2
	}
	socks, err := inherit(spec, 3)
	if err != nil {
		fmt.Fprintf(stderr, "synward-relay: %v\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, socks, spool, log); err != nil {
		fmt.Fprintf(stderr, "synward-relay: %v\n", err)
		return 1
	}
	return 0
}

// serve is the relay's life, from the sandbox to the last flush.
func serve(ctx context.Context, socks sockets, spool string, log *slog.Logger) (err error) {
	// Go's own resolver: the C library's would load modules inside the sandbox.
	net.DefaultResolver = &net.Resolver{PreferGo: true}
	_ = time.Now().Local().String() // reads the time zone while it can
	box, err := sandbox.Enter(spool)
	if err != nil {
		return err
	}
	own := log.With("component", "relay")
	own.Info("sandboxed", "landlock", box.Landlock, "seccomp", box.Seccomp, "capabilities", box.Capabilities)
	q, err := queue.Open(spool, queue.Options{Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()

	quotas, err := quota.Open(filepath.Join(spool, "quota.log"), time.Now, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, quotas.Close()) }()

	secret, err := ownSecret(filepath.Join(spool, "secret"))
	if err != nil {
		own.Warn("a restart will show SCRAM clients other salts for unknown names", "error", err)
	}
	events := relay.NewEvents(time.Now)
	certs := acme.New(acme.Options{Path: filepath.Join(spool, "acme.json"), Log: log, Now: time.Now})
	engine := deliver.New(deliver.Options{Queue: q, Observe: observer(events), Log: log})
	front := relay.New(relay.Options{
		Listeners: socks.smtp, Queue: q, Events: events, Quotas: quotas, Log: log, Secret: secret, Certificates: certs,
		Reconfigure: (&onward{engine: engine, spool: spool, log: log}).apply,
	})
	handler := admin.Handler(admin.Options{
		Front: front, Queue: q, Stats: q.Stats, Events: events, Sandbox: box, Version: version.String(), NextHops: front.NextHops,
		Quotas: quotas, Limits: front,
		Hands: admin.Hands{Retry: q.Retry, Hold: q.Hold, Release: q.Release, Delete: q.Delete},
	})

	// The admin socket outlives the drain, so that the agent can watch it.
	adminCtx, endAdmin := context.WithCancel(context.WithoutCancel(ctx))
	defer endAdmin()
	served := make(chan error, 1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		err := admin.Run(adminCtx, socks.admin, handler)
		if err != nil {
			cancel(err)
		}
		served <- err
	}()
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return front.Run(ctx) })
	parts.Go(func() error { return engine.Run(ctx) })
	parts.Go(func() error { return quotas.Run(ctx) })
	parts.Go(func() error { return certs.Run(ctx) })
	for _, l := range socks.acme {
		parts.Go(func() error { return certs.Serve(ctx, l.TLS, l.Net) })
	}
	err = parts.Wait()
	own.Info("stopped taking and sending mail")
	endAdmin()
	return errors.Join(err, <-served)
}

// observer turns what became of a recipient into an event.
func observer(events *relay.Events) func(deliver.Outcome) {
	return func(o deliver.Outcome) {
		events.Add(relay.Event{
			Time: o.Time, Kind: string(o.Kind), Item: o.Item, User: o.User, From: o.From,
			Rcpt: []string{o.Rcpt}, Rcpts: 1, NextHop: o.Hop, Reply: o.Reply,
			Message: "after " + o.Delay.Round(time.Millisecond).String(),
		})
	}
}
