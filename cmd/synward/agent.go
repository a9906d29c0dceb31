package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/derive"
	"github.com/synward/synward/cmd/version"
)

func agentCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:  "agent",
		Usage: "run the daemon in the foreground: the filter, its rules and the relay",
		Description: "SIGTERM ends it, and the filter goes on enforcing. SIGHUP reads the configuration again.\n" +
			"A killed agent leaves the filter and the relay as they are; the next one takes them over.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "log", Usage: "log `LEVEL`: debug, info, warn or error (default: the configuration's)"},
			&cli.StringFlag{Name: "relay-binary", Usage: "the relay's program `FILE` (default: synward-relay beside this one, or in PATH)"},
		},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0); err != nil {
				return err
			}
			f, err := agentFile(c)
			if err != nil {
				return err
			}
			log, err := f.Log.Open(s.err)
			if err != nil {
				return err
			}
			return runAgent(c, f, log)
		},
	}
}

func runAgent(c *cli.Context, f file, base *slog.Logger) error {
	log := base.With("component", "agent")
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50) // a large policy is changed at times: half as much garbage beside it, for little work
	}
	r, err := relayOptions(f, c.String("relay-binary"))
	if err != nil {
		return err
	}
	names := derive.New(derive.Options{Names: f.Names, Feeds: f.Feeds, Version: version.String(), Log: base})
	a, err := agent.New(c.Context, agent.Options{Config: f.Config, Version: version.String(), Relay: r, Tasks: []agent.Task{names}, Log: base})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	if err := serveMetrics(ctx, f, log); err != nil {
		return errors.Join(err, a.Close())
	}
	if err := agent.Notify("READY=1"); err != nil {
		log.Warn("no word to the service manager", "error", err)
	}
	go keepWatchdog(ctx, statusOf(f.Control.Socket), log)
	certs := &certWatch{push: a.PushRelay, log: log}
	certs.configure(f.Relay)
	go certs.run(ctx, certEvery)
	go reloadOnHangup(ctx, c, a, names, certs, f, log)
	log.Info("synward agent is ready", "version", version.String(), "socket", f.Control.Socket)
	err = a.Run(ctx)
	log.Info("synward agent ends; the filter goes on enforcing")
	return err
}

// agentFile is the configuration with the flags over it.
func agentFile(c *cli.Context) (file, error) {
	f, err := loadFile(c.String("config"))
	if socket := c.String("socket"); socket != "" {
		f.Control.Socket = socket
	}
	if level := c.String("log"); level != "" && err == nil {
		if f.Log.Level = level; f.Log.Validate() != nil {
			return f, usagef("--log %q: use debug, info, warn or error", level)
		}
	}
	return f, err
}

// reloadOnHangup reads the configuration again at every SIGHUP. A bad one is
// said and changes nothing.
func reloadOnHangup(ctx context.Context, c *cli.Context, a *agent.Agent, names *derive.Keeper, certs *certWatch, was file, log *slog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		f, err := agentFile(c)
		if err == nil {
			err = reload(ctx, a, was, f, log)
		}
		if err == nil {
			names.Configure(f.Names, f.Feeds)
			certs.configure(f.Relay)
		}
		if err != nil {
			log.Error("configuration not reloaded; the old one goes on", "error", oneLine(err))
			continue
		}
		log.Info("configuration reloaded")
	}
}

// reload brings in force what can change while the agent runs, and names what
// cannot.
func reload(ctx context.Context, a *agent.Agent, was, now file, log *slog.Logger) error {
	for key, same := range map[string]bool{
		"filter.pin_dir": was.Filter.PinDir == now.Filter.PinDir,
		"store":          was.Store == now.Store,
		"control":        was.Control == now.Control,
		"journal":        was.Journal == now.Journal,
		"metrics":        was.Metrics == now.Metrics,
		"log":            was.Log == now.Log,
		"relay.enabled":  was.Relay.Enabled == now.Relay.Enabled,
		"relay.listen":   reflect.DeepEqual(was.Relay.Listen, now.Relay.Listen),
		"relay.acme":     sameACME(was.Relay.ACME, now.Relay.ACME),
		"relay.user":     was.Relay.User == now.Relay.User,
		"relay.spool":    was.Relay.Spool == now.Relay.Spool,
	} {
		if !same {
			log.Warn("changed in the configuration, but in force only after a restart of the agent", "key", key)
		}
	}
	if !now.Relay.Enabled {
		return a.Reload(ctx, now.Config, nil)
	}
	if _, err := now.Relay.Settings(nil); err != nil {
		return err
	}
	return a.Reload(ctx, now.Config, relaySettings(now.Relay))
}
