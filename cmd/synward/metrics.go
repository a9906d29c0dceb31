package main

import (
	"context"
	"log/slog"
	"os/user"
	"strconv"

	"github.com/synward/synward/agent/metrics"
)

// serveMetrics opens the endpoint where the configuration names one, and
// serves it until the context ends.
func serveMetrics(ctx context.Context, f file, log *slog.Logger) error {
	if f.Metrics.Listen == "" {
		return nil
	}
	gid := -1
	if g, err := user.LookupGroup(f.Control.Group); err == nil {
		if n, err := strconv.Atoi(g.Gid); err == nil {
			gid = n
		}
	}
	m, err := metrics.Listen(f.Metrics, gid, statusOf(f.Control.Socket), log)
	if err != nil {
		return err
	}
	go func() {
		if err := m.Run(ctx); err != nil {
			log.Error("metrics are not served any more", "error", err)
		}
	}()
	log.Info("metrics", "listen", f.Metrics.Listen)
	return nil
}
