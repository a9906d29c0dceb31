package mx

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/synward/synward/relay/deliver"
)

// Modes of a policy (RFC 8461 5).
const (
	modeEnforce = "enforce"
	modeTesting = "testing"
	modeNone    = "none"
)

// Bounds of fetching a policy (RFC 8461 3.2, 3.3).
const (
	fetchTime  = 10 * time.Second
	maxPolicy  = 64 << 10
	maxAge     = 31557600 * time.Second
	refetch    = 5 * time.Minute // after a failure
	maxMXNames = 256
)

// policy is what a domain says about TLS to its servers. The zero one says nothing.
type policy struct {
	mode  string
	mx    []string
	until time.Time
	id    string // of the record that it was fetched for
}

// apply asks of a hop what the policy does, or says why it must not be used.
func (p policy) apply(hop *deliver.Hop, domain string) error {
	for _, pattern := range p.mx {
		if matches(pattern, hop.Host) {
			if p.mode == modeEnforce {
				hop.TLS = deliver.Required
			}
			return nil
		}
	}
	return refuse(451, "4.7.5", "the MTA-STS policy of "+domain+" does not list its mail server "+hop.Host)
}

// matches compares a name with a policy's mx: a leading *. is one label (RFC 8461 4.1).
func matches(pattern, host string) bool {
	rest, wild := strings.CutPrefix(pattern, "*.")
	if !wild {
		return pattern == host
	}
	_, parent, ok := strings.Cut(host, ".")
	return ok && parent == rest
}

// policies fetches and keeps policies.
type policies struct {
	off      bool
	resolver *Resolver
	client   *http.Client
	log      *slog.Logger
	now      func() time.Time
	byID     *cache[*policy] // by domain and the id in its DNS record; nil: could not be had
	last     *cache[policy]  // by domain
	keep     keeper
}

func newPolicies(o Options) *policies {
	p := &policies{
		off: o.NoSTS, resolver: o.Resolver, client: o.Client, log: o.Log, now: o.Now,
		byID: newCache[*policy](o.Now), last: newCache[policy](o.Now),
	}
	if p.client == nil {
		p.client = &http.Client{Transport: &http.Transport{
			DialContext:            dialer{o.Resolver, !o.NoIPv6, o.AllowLocal}.dial,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxPolicy,
		}}
	}
	p.restore(o.Policies)
	c := *p.client
	c.Timeout = fetchTime
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	p.client = &c
	return p
}

// restore takes over what an earlier process has kept in a file.
func (p *policies) restore(path string) {
	p.keep.path, p.keep.list = path, p.keepable
	p.keep.say = func(err error) { p.log.Warn("MTA-STS policies", "error", err) }
	if path == "" || p.off {
		return
	}
	now := p.now()
	all, err := readKept(path, now)
	if err != nil {
		p.keep.say(err)
	}
	for _, k := range all[:min(len(all), maxCached*3/4)] {
		pol := policy{mode: k.Mode, mx: k.MX, until: k.Until, id: k.ID}
		p.last.put(k.Domain, pol, k.Until.Sub(now))
		p.byID.put(k.Domain+" "+k.ID, &pol, k.Until.Sub(now))
	}
}

// keepable are the policies that hold.
func (p *policies) keepable() []kept {
	list := []kept{}
	for domain, pol := range p.last.all() {
		list = append(list, kept{Domain: domain, ID: pol.id, Mode: pol.mode, MX: pol.mx, Until: pol.until})
	}
	return list
}

// of returns a domain's policy. Where it cannot be had, the one had before
// counts until its time is over (RFC 8461 5.1).
func (p *policies) of(ctx context.Context, domain string) policy {
	if p.off {
		return policy{}
	}
	id := p.id(ctx, domain)
	if id != "" {
		if now, err := p.byID.get(ctx, domain+" "+id, func() (*policy, time.Duration) { return p.renew(domain, id) }); err == nil && now != nil {
			return *now
		}
	}
	if old, ok := p.last.peek(domain); ok && p.now().Before(old.until) {
		return old
	}
	return policy{}
}

// renew fetches a policy and keeps it.
func (p *policies) renew(domain, id string) (*policy, time.Duration) {
	pol, age, err := p.fetch(domain)
	if err != nil {
		p.log.Warn("cannot fetch an MTA-STS policy", "domain", domain, "error", err)
		return nil, refetch
	}
	pol.until, pol.id = p.now().Add(age), id
	p.last.put(domain, pol, age)
	p.keep.changed()
	return &pol, age
}

// id is the one in the domain's record, "" without a usable one.
func (p *policies) id(ctx context.Context, domain string) string {
	res, err := p.resolver.lookup(ctx, "_mta-sts."+domain, dns.TypeTXT)
	if err != nil || res.err != nil {
		return ""
	}
	id := ""
	for _, rr := range res.records {
		t, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		fields := strings.Split(strings.Join(t.Txt, ""), ";")
		if strings.TrimSpace(fields[0]) != "v=STSv1" {
			continue
		}
		if id != "" {
			return "" // more than one: as if there were none
		}
		for _, f := range fields[1:] {
			if k, v, _ := strings.Cut(f, "="); strings.TrimSpace(k) == "id" {
				id = strings.TrimSpace(v)
			}
		}
		if id == "" || len(id) > 32 {
			return ""
		}
	}
	return id
}

func (p *policies) fetch(domain string) (pol policy, age time.Duration, err error) {
	resp, err := p.client.Get("https://mta-sts." + domain + "/.well-known/mta-sts.txt")
	if err != nil {
		return policy{}, 0, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode != http.StatusOK {
		return policy{}, 0, fmt.Errorf("fetch policy: %s", resp.Status)
	}
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != "text/plain" {
		return policy{}, 0, fmt.Errorf("fetch policy: content type %.80q", resp.Header.Get("Content-Type"))
	}
	return parsePolicy(io.LimitReader(resp.Body, maxPolicy))
}

// parsePolicy reads a policy (RFC 8461 3.2). Keys that it does not know are
// left alone; of one that may be there once, the first counts.
func parsePolicy(r io.Reader) (pol policy, age time.Duration, err error) {
	first := map[string]string{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok {
			continue
		}
		if key == "mx" && len(pol.mx) < maxMXNames {
			pol.mx = append(pol.mx, strings.ToLower(strings.TrimSuffix(value, ".")))
		}
		if _, known := first[key]; !known {
			first[key] = value
		}
	}
	if err := lines.Err(); err != nil {
		return policy{}, 0, fmt.Errorf("read policy: %w", err)
	}
	seconds, err := strconv.ParseUint(first["max_age"], 10, 32)
	pol.mode = first["mode"]
	switch {
	case first["version"] != "STSv1":
		return policy{}, 0, fmt.Errorf("read policy: version %.20q", first["version"])
	case pol.mode != modeEnforce && pol.mode != modeTesting && pol.mode != modeNone:
		return policy{}, 0, fmt.Errorf("read policy: mode %.20q", pol.mode)
	case err != nil:
		return policy{}, 0, fmt.Errorf("read policy: max_age %.20q", first["max_age"])
	case len(pol.mx) == 0 && pol.mode != modeNone:
		return policy{}, 0, errors.New("read policy: it lists no mx")
	}
	return pol, min(time.Duration(seconds)*time.Second, maxAge), nil
}

// dialer connects to the host of a policy by our own resolver.
type dialer struct {
	resolver    *Resolver
	ipv6, local bool
}

func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, _, err := d.resolver.addresses(ctx, host, d.ipv6)
	if err == nil {
		err = errors.New("no address of " + host + " can be used")
	}
	for _, a := range addrs[:min(len(addrs), 4)] {
		if !d.local && local(a) {
			continue
		}
		var c net.Conn
		if c, err = new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(a.String(), port)); err == nil {
			return c, nil
		}
	}
	return nil, err
}
