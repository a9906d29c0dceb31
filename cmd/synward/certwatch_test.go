package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/synward/synward/relay"
)

// TestCertWatch: a certificate that was written, replaced or led elsewhere is
// pushed, once; one that is refused is tried again.
func TestCertWatch(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cert", "1")
	write("key", "1")
	pushed, refuse := 0, false
	w := &certWatch{log: slog.New(slog.DiscardHandler), push: func(context.Context) error {
		pushed++
		if refuse {
			return errors.New("the key does not fit")
		}
		return nil
	}}
	w.configure(relay.Config{Enabled: true, TLS: relay.TLSFiles{Cert: at("cert"), Key: at("key")}})
	look := func(what string, want int) {
		t.Helper()
		pushed = 0
		for range 3 {
			w.look(t.Context())
		}
		if pushed != want {
			t.Errorf("%s: pushed %d times, want %d", what, pushed, want)
		}
	}
	look("nothing has changed", 0)
	if _, err := os.ReadFile(at("cert")); err != nil {
		t.Fatal(err)
	}
	look("it was read", 0)
	write("cert", "22")
	look("another length", 1)
	if err := os.Chtimes(at("key"), time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	look("another time", 1)
	write("new", "22")
	if err := os.Rename(at("new"), at("cert")); err != nil {
		t.Fatal(err)
	}
	look("another file", 1)
	refuse = true
	write("cert", "333")
	look("refused", 3)
	refuse = false
	look("good in the end", 1)
	w.configure(relay.Config{})
	write("cert", "4444")
	look("not enabled", 0)
}
