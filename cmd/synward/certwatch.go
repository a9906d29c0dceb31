package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/synward/synward/relay"
)

// certEvery is how often the certificate's files are looked at.
const certEvery = 20 * time.Second

// certWatch has the relay take over a certificate whose files have changed, as by
// a renewal, without anybody's reload. Open sessions go on.
type certWatch struct {
	push func(context.Context) error
	log  *slog.Logger

	mu   sync.Mutex
	tls  relay.TLSFiles
	seen string
}

// configure says which files to look at from now on; what they hold is in force.
func (w *certWatch) configure(c relay.Config) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tls = relay.TLSFiles{}
	if c.Enabled {
		w.tls = c.TLS
	}
	w.seen = stamp(w.tls)
}

// run looks until ctx ends.
func (w *certWatch) run(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.look(ctx)
		}
	}
}

// look pushes where a file is another one than before. A pair that does not fit,
// as in the middle of a renewal, is refused, and looked at again.
func (w *certWatch) look(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := stamp(w.tls)
	if now == w.seen {
		return
	}
	if err := w.push(ctx); err != nil {
		w.log.Error("the new certificate is not in force; the old one goes on", "path", w.tls.Cert, "error", oneLine(err))
		return
	}
	w.seen = now
	w.log.Info("the certificate has changed, and is in force", "path", w.tls.Cert)
}

// stamp is another one where a file was written or replaced.
func stamp(files relay.TLSFiles) (s string) {
	for _, path := range []string{files.Cert, files.Key} {
		if path == "" {
			continue
		}
		fi, err := os.Stat(path) // of what a link, such as certbot's, leads to
		if err != nil {
			s += "gone;"
			continue
		}
		var inode uint64
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			inode = st.Ino
		}
		s += fmt.Sprintf("%d %d %d;", fi.ModTime().UnixNano(), fi.Size(), inode)
	}
	return s
}
