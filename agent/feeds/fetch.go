package feeds

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// ErrUnchanged says that a list is as it was at the mark.
var ErrUnchanged = errors.New("unchanged")

// Options bound what a fetcher takes.
type Options struct {
	MaxBytes   int64         // of a list, unpacked
	MaxEntries int           // prefixes of a list
	Timeout    time.Duration // for the whole of a fetch
	Private    bool          // lists may come from loopback and private addresses
	Roots      *x509.CertPool
	UserAgent  string
}

// maxRedirects is how often a server may send on to another place.
const maxRedirects = 3

// Fetcher gets lists. It may be used by several goroutines.
type Fetcher struct {
	o    Options
	http *http.Client
}

// NewFetcher returns a fetcher. It speaks HTTPS alone, follows redirects to
// HTTPS alone, and uses no proxy.
func NewFetcher(o Options) *Fetcher {
	f := &Fetcher{o: o}
	d := net.Dialer{Timeout: 10 * time.Second, Control: f.mayConnect}
	f.http = &http.Client{
		Transport: &http.Transport{
			DialContext:            d.DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true,
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Scheme != "https" {
				return fmt.Errorf("it sends on to %s, which is not https", r.URL.Redacted())
			}
			if len(via) > maxRedirects {
				return fmt.Errorf("it sends on more than %d times", maxRedirects)
			}
			return nil
		},
	}
	return f
}

// Check says whether a list may be at a place: an absolute path, file:///path,
// or https://host/path.
func Check(place string) error {
	u, err := url.Parse(place)
	switch {
	case strings.ContainsFunc(place, func(r rune) bool { return r == '"' || !unicode.IsPrint(r) }): // it is a word of the policy's text
		return fmt.Errorf("%q: no double quotes and no control characters", place)
	case filepath.IsAbs(place):
		return nil
	case err != nil || u.Scheme == "" || strings.ContainsFunc(place, func(r rune) bool { return r <= ' ' || r == 0x7f }):
	case u.Scheme == "file" && u.Host == "" && filepath.IsAbs(u.Path):
		return nil
	case u.Scheme == "http":
		return fmt.Errorf("%q: whoever is on the way could change the list: use https", place)
	case u.Scheme == "https" && u.User != nil:
		return errors.New("no user or password in the address: they would be shown to everybody who lists feeds")
	case u.Scheme == "https" && u.Host != "":
		return nil
	}
	return fmt.Errorf("%q: write https://host/path, or the absolute path of a file", place)
}

// Mark is by what a list that has not changed is known; zero = none.
type Mark struct {
	ETag     string `json:"etag,omitempty"`
	Modified string `json:"modified,omitempty"` // a time, as the server or the file system tells it
}

// Fetch gets the list at a place. Where it is as it was at the mark, the
// error is ErrUnchanged; ErrEmpty where there is no prefix in it.
func (f *Fetcher) Fetch(ctx context.Context, place string, was Mark) (List, Mark, error) {
	ctx, cancel := context.WithTimeout(ctx, f.o.Timeout)
	defer cancel()
	if err := Check(place); err != nil {
		return List{}, Mark{}, err
	}
	get := f.web
	if u, err := url.Parse(place); filepath.IsAbs(place) {
		get = f.file
	} else if err == nil && u.Scheme == "file" {
		place, get = u.Path, f.file
	}
	body, mark, err := get(ctx, place, was)
	if err == nil {
		// A server that sees us go may end its answer as if it were whole.
		err = ctx.Err()
	}
	if err != nil {
		// A connection's own deadline may come a moment before the context's.
		if late := net.Error(nil); ctx.Err() == context.DeadlineExceeded || errors.As(err, &late) && late.Timeout() {
			err = fmt.Errorf("not all of it came within %s", f.o.Timeout)
		}
		return List{}, Mark{}, err
	}
	l, err := Parse(bytes.NewReader(body), f.o.MaxEntries)
	return l, mark, err
}

// file reads a plain file: a pipe or a device would never end.
func (f *Fetcher) file(_ context.Context, path string, was Mark) ([]byte, Mark, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, Mark{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, Mark{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, Mark{}, fmt.Errorf("%s is not a plain file", path)
	}
	mark := Mark{Modified: fmt.Sprintf("%d bytes of %s", info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano))}
	if mark == was {
		return nil, mark, ErrUnchanged
	}
	body, err := f.read(file)
	return body, mark, err
}

func (f *Fetcher) web(ctx context.Context, place string, was Mark) ([]byte, Mark, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return nil, Mark{}, err
	}
	req.Header.Set("User-Agent", f.o.UserAgent)
	if was.ETag != "" {
		req.Header.Set("If-None-Match", was.ETag)
	}
	if was.Modified != "" {
		req.Header.Set("If-Modified-Since", was.Modified)
	}
	resp, err := f.http.Do(req)
	if err != nil {
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err // the address stands beside it anyway
		}
		return nil, Mark{}, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && was != Mark{}:
		return nil, was, ErrUnchanged
	case resp.StatusCode != http.StatusOK:
		return nil, Mark{}, fmt.Errorf("the server says %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	case resp.ContentLength > f.o.MaxBytes:
		return nil, Mark{}, f.tooLarge()
	}
	body, err := f.read(resp.Body)
	return body, Mark{ETag: short(resp.Header.Get("ETag")), Modified: short(resp.Header.Get("Last-Modified"))}, err
}

// read takes all of a list, which a bomb of a packed one is too.
func (f *Fetcher) read(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, f.o.MaxBytes+1))
	if err == nil && int64(len(body)) > f.o.MaxBytes {
		err = f.tooLarge()
	}
	return body, err
}

func (f *Fetcher) tooLarge() error {
	return fmt.Errorf("it is longer than %d bytes (feeds.max_bytes)", f.o.MaxBytes)
}

// short keeps a header that is worth keeping.
func short(s string) string {
	if len(s) > 256 {
		return ""
	}
	return s
}

// mayConnect is asked with the very address of each connection, after every
// resolution and redirect.
func (f *Fetcher) mayConnect(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !f.o.Private && !public(ap.Addr()) {
		return fmt.Errorf("%s is not a public address; allow it with feeds.private = true", ap.Addr())
	}
	return nil
}

// public says whether an address is of the Internet at large, by what it is or
// what it carries inside (IPv4-mapped, NAT64, 6to4).
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range inside() {
		if p.outer.Contains(a) {
			b := a.As16()
			return public(netip.AddrFrom4([4]byte(b[p.at : p.at+4])))
		}
	}
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, s := range []string{"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4", "fec0::/10", "64:ff9b:1::/48"} {
		if netip.MustParsePrefix(s).Contains(a) {
			return false
		}
	}
	return true
}

// embedding is a prefix whose addresses carry an IPv4 address from byte at on.
type embedding struct {
	outer netip.Prefix
	at    int
}

func inside() []embedding {
	return []embedding{{netip.MustParsePrefix("64:ff9b::/96"), 12}, {netip.MustParsePrefix("2002::/16"), 2}}
}
