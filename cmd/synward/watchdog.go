package main

import (
	"context"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/metrics"
)

// statusOf reads the status by the agent's own socket, the way that everybody
// else does: what answers there is alive.
func statusOf(socket string) metrics.Source {
	return control.NewClient(socket).Status
}

// watchdogInterval is how often the service manager wants to hear from the
// process pid (sd_watchdog_enabled(3)); 0 = not at all.
func watchdogInterval(getenv func(string) string, pid int) time.Duration {
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	if p := getenv("WATCHDOG_PID"); p != "" && p != strconv.Itoa(pid) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

// keepWatchdog tells the service manager that the agent lives, for as long as
// it does: until the context ends, and only after a status that was answered.
// An agent that hangs is silent, and is started anew.
func keepWatchdog(ctx context.Context, alive metrics.Source, log *slog.Logger) {
	interval := watchdogInterval(os.Getenv, os.Getpid())
	if interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked, cancel := context.WithTimeout(ctx, interval/3)
		_, err := alive(asked)
		cancel()
		if err == nil {
			err = agent.Notify("WATCHDOG=1")
		}
		if err != nil && ctx.Err() == nil {
			log.Warn("no sign of life for the service manager", "error", err)
		}
	}
}
