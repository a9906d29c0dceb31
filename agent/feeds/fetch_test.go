package feeds_test

import (
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synward/synward/agent/feeds"
)

// serve is an HTTPS server on this host, and options for a fetcher that trusts it.
func serve(t *testing.T, h http.HandlerFunc) (*httptest.Server, feeds.Options) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s, feeds.Options{MaxBytes: 1 << 20, MaxEntries: 1000, Timeout: time.Minute, Private: true, Roots: roots, UserAgent: "synward/test"}
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, s) }
}

func TestFetchOverHTTPS(t *testing.T) {
	s, o := serve(t, text("192.0.2.0/24\n"))
	l, _, err := feeds.NewFetcher(o).Fetch(t.Context(), s.URL+"/list", feeds.Mark{})
	if err != nil || joined(l) != "192.0.2.0/24" {
		t.Fatalf("%s, %v", joined(l), err)
	}
	o.Roots = x509.NewCertPool()
	if _, _, err := feeds.NewFetcher(o).Fetch(t.Context(), s.URL, feeds.Mark{}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server that nobody vouches for: %v", err)
	}
}

func TestUnchangedIsSaid(t *testing.T) {
	s, o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == `"one"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("ETag", `"one"`)
		io.WriteString(w, "192.0.2.0/24\n")
	})
	f := feeds.NewFetcher(o)
	_, mark, err := f.Fetch(t.Context(), s.URL, feeds.Mark{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Fetch(t.Context(), s.URL, mark); !errors.Is(err, feeds.ErrUnchanged) {
		t.Errorf("again: %v, want ErrUnchanged", err)
	}
	always, o := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	if _, _, err := feeds.NewFetcher(o).Fetch(t.Context(), always.URL, feeds.Mark{}); err == nil || errors.Is(err, feeds.ErrUnchanged) {
		t.Errorf("not modified, where nothing was there: %v", err)
	}
}

// Each is refused in one line, and takes neither the memory nor the time that
// it asks for.
func TestHostileServers(t *testing.T) {
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		want  string
	}{
		"10 GB announced": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(10<<30))
			io.WriteString(w, "192.0.2.1\n")
		}, "longer than 1048576 bytes"},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			line := []byte(strings.Repeat("192.0.2.1\n", 1000))
			for {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
		}, "longer than 1048576 bytes"},
		"packed": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			line := []byte(strings.Repeat("\n", 1<<20))
			for range 3 {
				z.Write(line)
			}
			z.Close()
		}, "longer than 1048576 bytes"},
		"slow": {func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "192.0.2.1\n")
			w.(http.Flusher).Flush()
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		}, "not all of it came within"},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "192.0.2.1\n")
		}, "unexpected EOF"},
		"gone":      {http.NotFound, "the server says 404 Not Found"},
		"a page":    {text("<html>\n<body>Please log in</body>\n"), "lines are bad"},
		"empty":     {text(""), "no prefix in it"},
		"in circle": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, "more than 3 times"},
		"to http": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://198.51.100.1/list", http.StatusFound)
		}, "not https"},
		"to a file": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, "not https"},
	} {
		t.Run(name, func(t *testing.T) {
			s, o := serve(t, c.serve)
			if name == "slow" {
				o.Timeout = time.Second
			}
			l, _, err := feeds.NewFetcher(o).Fetch(t.Context(), s.URL, feeds.Mark{})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, %v, want %q", l, err, c.want)
			}
		})
	}
}

// Where private addresses are not allowed, no connection is made to one: not
// by its name, not in whatever form it is written.
func TestPrivateTargetsAreRefused(t *testing.T) {
	asked := false
	s, o := serve(t, func(w http.ResponseWriter, _ *http.Request) { asked = true; io.WriteString(w, "192.0.2.1\n") })
	o.Private = false
	f := feeds.NewFetcher(o)
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "https://"), ":")
	for _, host := range []string{
		"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "[fe80::1]", "[fd00::1]", "[::]",
		"[64:ff9b::127.0.0.1]", "[64:ff9b::10.0.0.1]", "[2002:7f00:1::]",
	} {
		_, _, err := f.Fetch(t.Context(), "https://"+host+":"+port+"/", feeds.Mark{})
		if err == nil || !strings.Contains(err.Error(), "not a public address; allow it with feeds.private = true") {
			t.Errorf("%s: %v", host, err)
		}
	}
	if asked {
		t.Error("the server was reached")
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "list")
	if err := os.WriteFile(path, []byte("192.0.2.0/24\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := feeds.NewFetcher(feeds.Options{MaxBytes: 1 << 10, MaxEntries: 100, Timeout: 5 * time.Second})
	for _, place := range []string{path, "file://" + path} {
		l, mark, err := f.Fetch(t.Context(), place, feeds.Mark{})
		if err != nil || joined(l) != "192.0.2.0/24" {
			t.Errorf("%s: %s, %v", place, joined(l), err)
		}
		if _, _, err := f.Fetch(t.Context(), place, mark); !errors.Is(err, feeds.ErrUnchanged) {
			t.Errorf("%s again: %v, want ErrUnchanged", place, err)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, "long")
	if err := os.WriteFile(long, []byte(strings.Repeat("#", 2<<10)), 0o600); err != nil {
		t.Fatal(err)
	}
	for place, want := range map[string]string{
		fifo: "not a plain file", dir: "not a plain file", "/dev/zero": "not a plain file", long: "longer than 1024 bytes", dir + "/none": "no such file",
	} {
		if _, _, err := f.Fetch(t.Context(), place, feeds.Mark{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", place, err, want)
		}
	}
}

func TestPlaces(t *testing.T) {
	for place, good := range map[string]bool{
		"https://lists.example/drop.txt": true, "/var/lib/lists/own": true, "file:///var/lib/own": true,
		"http://lists.example/": false, "lists.example": false, "own.txt": false, "": false, "ftp://x.example/": false, "https://": false,
		"https://user:secret@lists.example/": false, "file://host/x": false, "https://x.example/a b": false, "https://x.example/\n": false,
	} {
		if err := feeds.Check(place); (err == nil) != good {
			t.Errorf("%q: %v", place, err)
		}
	}
}

func TestTheCallersEndIsTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, o := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, _, err := feeds.NewFetcher(o).Fetch(ctx, s.URL, feeds.Mark{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}
