package names

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/synward/synward/agent/policy"
)

// The limits of RFC 7208 4.6.4.
const (
	maxLookups = 10 // terms that make a receiver ask
	maxVoid    = 2  // questions that bring nothing
	maxMX      = 10 // names of an mx term
)

// errNoRecord is a domain without an SPF record.
var errNoRecord = errors.New("no SPF record")

// walk is one evaluation: RFC 7208 4, for every address at once instead of one.
type walk struct {
	r       *Resolver
	origin  string // the domain that the walk began with
	path    []string
	lookups int
	voids   int
	ttl     time.Duration
	notes   []string
}

func (r *Resolver) spf(ctx context.Context, domain string) (Result, error) {
	w := walk{r: r, origin: domain, ttl: maxTTL}
	pass, err := w.domain(ctx, domain)
	if errors.Is(err, errNoRecord) {
		return Result{}, fmt.Errorf("%s: %w it: the domain has no SPF record", domain, ErrEmpty)
	}
	if err != nil {
		return Result{}, err
	}
	slices.Sort(w.notes)
	return Result{Prefixes: policy.Compact(pass), TTL: w.ttl, Notes: slices.Compact(w.notes)}, nil
}

// domain gives the sources that a domain's record passes. A term's sources
// are those that no term before it has decided about.
func (w *walk) domain(ctx context.Context, domain string) (pass space, err error) {
	if slices.Contains(w.path, domain) {
		return nil, &PermError{domain, "it includes itself by way of " + strings.Join(w.path, ", ")}
	}
	w.path = append(w.path, domain)
	defer func() { w.path = w.path[:len(w.path)-1] }()
	rec, err := w.record(ctx, domain)
	if err != nil {
		return nil, err
	}
	var refused space
	for _, t := range rec.terms {
		if t.kind == "all" {
			if t.pass {
				w.note(domain, t.text, "it lets everybody send, and is left out")
			}
			return pass, nil
		}
		found, err := w.term(ctx, domain, t)
		if err != nil {
			return nil, err
		}
		if !t.pass {
			refused = append(refused, found...)
			continue
		}
		if pass = append(pass, space(found).minus(refused)...); len(pass) > maxPrefixes {
			return nil, fmt.Errorf("SPF record of %s: more than %d prefixes", domain, maxPrefixes)
		}
	}
	if rec.redirect == "" {
		return pass, nil
	}
	found, err := w.other(ctx, domain, "redirect="+rec.redirect, rec.redirect)
	return append(pass, found.minus(refused)...), err
}

// record fetches and reads a domain's record.
func (w *walk) record(ctx context.Context, domain string) (record, error) {
	a, err := w.ask(ctx, domain, dns.TypeTXT)
	if err != nil {
		return record{}, err
	}
	var texts []string
	for _, rr := range a.records {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		text := strings.Join(txt.Txt, "")
		if v, _, _ := strings.Cut(text, " "); strings.EqualFold(v, "v=spf1") {
			texts = append(texts, text)
		}
	}
	switch len(texts) {
	case 0:
		return record{}, fmt.Errorf("%s: %w", domain, errNoRecord)
	case 1:
	default:
		return record{}, &PermError{domain, fmt.Sprintf("there are %d of them", len(texts))}
	}
	rec, err := parseRecord(texts[0])
	if err != nil {
		return record{}, &PermError{domain, err.Error()}
	}
	return rec, nil
}

// term gives the sources that match a mechanism. What cannot be turned into
// prefixes is noted, and matches none.
func (w *walk) term(ctx context.Context, domain string, t term) (space, error) {
	switch t.kind {
	case "ip4", "ip6":
		if t.prefix.Addr().Is4In6() {
			w.note(domain, t.text, "no source has an IPv4-mapped address")
			return nil, nil
		}
		return space{t.prefix}, nil
	case "include":
		return w.other(ctx, domain, t.text, t.domain)
	}
	if err := w.count(domain, t.text); err != nil {
		return nil, err
	}
	switch t.kind {
	case "ptr", "exists":
		w.note(domain, t.text, t.kind+" asks about each source by itself")
		return nil, nil
	}
	target, ok := w.target(domain, t.text, t.domain)
	if !ok {
		return nil, nil
	}
	hosts := []string{target}
	if t.kind == "mx" {
		var err error
		if hosts, err = w.mx(ctx, domain, target); err != nil {
			return nil, err
		}
	}
	var out space
	for _, h := range hosts {
		addrs, err := w.addresses(ctx, domain, h)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			bits := t.bits6
			if a.Is4() {
				bits = t.bits4
			}
			p, _ := a.Prefix(bits)
			out = append(out, p)
		}
	}
	return out, nil
}

// other gives the sources that another domain's record passes.
func (w *walk) other(ctx context.Context, domain, text, spec string) (space, error) {
	if err := w.count(domain, text); err != nil {
		return nil, err
	}
	target, ok := w.target(domain, text, spec)
	if !ok {
		return nil, nil
	}
	pass, err := w.domain(ctx, target)
	if errors.Is(err, errNoRecord) {
		return nil, &PermError{domain, fmt.Sprintf("%s: %s has no SPF record", text, target)}
	}
	return pass, err
}

// mx gives the names of a domain's mail exchangers.
func (w *walk) mx(ctx context.Context, domain, target string) (hosts []string, err error) {
	a, err := w.ask(ctx, target, dns.TypeMX)
	if err != nil {
		return nil, err
	}
	for _, rr := range a.records {
		if mx, ok := rr.(*dns.MX); ok && mx.Mx != "." { // the null MX of RFC 7505
			hosts = append(hosts, strings.TrimSuffix(mx.Mx, "."))
		}
	}
	switch {
	case len(hosts) > maxMX:
		return nil, &PermError{domain, fmt.Sprintf("mx of %s: %d names are more than %d", target, len(hosts), maxMX)}
	case len(a.records) == 0:
		return nil, w.void(domain)
	}
	return hosts, nil
}

func (w *walk) addresses(ctx context.Context, domain, host string) ([]netip.Addr, error) {
	addrs, ttl, err := w.r.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	w.ttl = min(w.ttl, ttl)
	if len(addrs) == 0 {
		return nil, w.void(domain)
	}
	return addrs, nil
}

func (w *walk) ask(ctx context.Context, name string, typ uint16) (answer, error) {
	a, err := w.r.ask(ctx, name, typ)
	w.ttl = min(w.ttl, a.ttl)
	return a, err
}

// target is the domain that a term speaks of. Macros that stand for the domain
// itself are expanded; what depends on a message is not.
func (w *walk) target(domain, text, spec string) (string, bool) {
	if spec == "" {
		return domain, true
	}
	spec = strings.NewReplacer("%{d}", domain, "%{D}", domain, "%{o}", w.origin, "%{O}", w.origin).Replace(spec)
	if strings.Contains(spec, "%") {
		w.note(domain, text, "the macro depends on each message")
		return "", false
	}
	name := strings.ToLower(strings.TrimSuffix(spec, "."))
	if _, ok := dns.IsDomainName(name); !ok || !strings.Contains(name, ".") {
		w.note(domain, text, "not a domain name")
		return "", false
	}
	return name, true
}

func (w *walk) count(domain, text string) error {
	if w.lookups++; w.lookups > maxLookups {
		return &PermError{domain, fmt.Sprintf("%s is one too many: more than %d lookups (RFC 7208 4.6.4)", text, maxLookups)}
	}
	return nil
}

func (w *walk) void(domain string) error {
	if w.voids++; w.voids > maxVoid {
		return &PermError{domain, fmt.Sprintf("more than %d lookups bring nothing (RFC 7208 4.6.4)", maxVoid)}
	}
	return nil
}

func (w *walk) note(domain, text, why string) {
	w.notes = append(w.notes, fmt.Sprintf("%s of %s: %s", text, domain, why))
}
