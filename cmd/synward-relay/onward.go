package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/deliver"
	"github.com/synward/synward/relay/deliver/mx"
)

// onward hands the delivery its part of the settings. What the MX router has
// learnt survives a reload that does not change how it asks.
type onward struct {
	engine *deliver.Engine
	spool  string
	log    *slog.Logger
	router *mx.Router // nil: not needed so far
	config relay.MXConfig
	name   string // our host's, as the router knows it
}

// apply is called with one set of settings at a time.
func (o *onward) apply(s relay.Settings) error {
	route, err := o.routes(s)
	if err != nil {
		return err
	}
	set := deliver.Settings{Router: route, Hostname: s.Hostname, Expire: time.Duration(s.Retry.Expire)}
	signer, err := s.Signer()
	if err != nil {
		return err
	}
	if !signer.Empty() {
		set.Sign = signer.Sign
	}
	if s.Retry.Min > 0 || s.Retry.Max > 0 {
		set.Item = deliver.Backoff{First: time.Minute, Max: time.Hour}
		if s.Retry.Min > 0 {
			set.Item.First = time.Duration(s.Retry.Min)
		}
		if s.Retry.Max > 0 {
			set.Item.Max = time.Duration(s.Retry.Max)
		}
		set.Item.Max = max(set.Item.Max, set.Item.First)
	}
	o.engine.Configure(set)
	return nil
}

// routes makes the way of each domain.
func (o *onward) routes(s relay.Settings) (deliver.Router, error) {
	def, err := hops("smarthosts", s.Smarthosts)
	if err != nil {
		return nil, err
	}
	t := mx.Table{Default: def, Domains: map[string]deliver.Router{}}
	if s.MX.Enabled && len(s.Smarthosts) == 0 {
		if t.Default, err = o.byMX(s); err != nil {
			return nil, err
		}
	}
	for i, r := range s.Routes {
		var via deliver.Router
		if r.MX {
			via, err = o.byMX(s)
		} else {
			via, err = hops(fmt.Sprintf("routes[%d].smarthosts", i), r.Smarthosts)
		}
		if err != nil {
			return nil, err
		}
		for _, d := range r.Domains {
			t.Domains[strings.ToLower(d)] = via
		}
	}
	return t, nil
}

func (o *onward) byMX(s relay.Settings) (deliver.Router, error) {
	if o.router != nil && o.name == s.Hostname && reflect.DeepEqual(o.config, s.MX) {
		return o.router, nil
	}
	res, err := mx.NewResolver(s.MX.Resolver, time.Now)
	if err != nil {
		return nil, fmt.Errorf("mx.resolver: %w", err)
	}
	o.config, o.name = s.MX, s.Hostname
	o.router = mx.New(mx.Options{
		Resolver: res, Hostname: s.Hostname, Log: o.log, Policies: filepath.Join(o.spool, "mta-sts.json"),
		NoIPv6: s.MX.NoIPv6, NoSTS: s.MX.NoMTASTS, NoDANE: s.MX.NoDANE,
	})
	return o.router, nil
}

func hops(key string, list []relay.Smarthost) (deliver.SmartHosts, error) {
	hops := make(deliver.SmartHosts, 0, len(list))
	for i, h := range list {
		hop := deliver.Hop{
			Host: h.Host, Port: int(h.Port), TLS: deliver.TLSMode(h.TLS),
			CA: h.CAPEM, User: h.User, Password: h.Password, Forward: deliver.Forward(h.Forward),
		}
		if err := hop.Validate(); err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", key, i, err)
		}
		hops = append(hops, hop)
	}
	return hops, nil
}
