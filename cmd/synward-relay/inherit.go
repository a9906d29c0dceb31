package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/acme"
)

// sockets are what the agent hands over.
type sockets struct {
	admin net.Listener
	smtp  []relay.Listener
	acme  []relay.Listener // TLS is the challenge that is answered there
}

// inherit takes the listeners that spec names ("admin,587/starttls,…"), in the
// order of the descriptors from first on.
func inherit(spec string, first int) (sockets, error) {
	var s sockets
	for i, name := range strings.Split(spec, ",") {
		port, mode, err := parseListener(name)
		if err != nil {
			return sockets{}, err
		}
		l, err := listener(first+i, name)
		if err != nil {
			return sockets{}, fmt.Errorf("SYNWARD_LISTENERS: descriptor %d (%s): %w", first+i, name, err)
		}
		switch {
		case mode == acme.HTTP01 || mode == acme.TLSALPN01:
			s.acme = append(s.acme, relay.Listener{Net: l, Port: port, TLS: mode})
		case port != 0:
			s.smtp = append(s.smtp, relay.Listener{Net: l, Port: port, TLS: mode})
		case s.admin != nil:
			return sockets{}, errors.New("SYNWARD_LISTENERS: admin is there twice")
		default:
			s.admin = l
		}
	}
	if s.admin == nil {
		return sockets{}, errors.New("SYNWARD_LISTENERS: admin is missing")
	}
	return s, nil
}

// parseListener reads "admin" (port 0), or one such as "587/starttls" or "80/http-01".
func parseListener(name string) (port uint16, mode string, err error) {
	if name == "admin" {
		return 0, "", nil
	}
	num, mode, _ := strings.Cut(name, "/")
	n, err := strconv.ParseUint(num, 10, 16)
	if err != nil || n == 0 || !slices.Contains([]string{relay.TLSStartTLS, relay.TLSImplicit, acme.HTTP01, acme.TLSALPN01}, mode) {
		return 0, "", fmt.Errorf("SYNWARD_LISTENERS: %q is neither admin nor like 587/starttls, 465/implicit, 80/http-01 or 443/tls-alpn-01", name)
	}
	return uint16(n), mode, nil
}

// listener makes one of a descriptor, and keeps only its own copy.
func listener(fd int, name string) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), name)
	if f == nil {
		return nil, os.ErrInvalid
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the name is the agent's
	}
	return l, nil
}
