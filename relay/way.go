package relay

import (
	"net"
	"strconv"
	"strings"
)

// Ways answers where mail for a domain goes by these settings, in words for an
// operator: host:port of each smarthost in order, or the domain itself where
// its MX records decide.
func (s Settings) Ways() func(domain string) []string {
	routes := map[string][]string{}
	for _, r := range s.Routes {
		for _, d := range r.Domains {
			routes[strings.ToLower(d)] = hopNames(r.Smarthosts) // nil: by MX
		}
	}
	def := hopNames(s.Smarthosts)
	return func(domain string) []string {
		domain = strings.ToLower(domain)
		via, found := routes[domain]
		for rest, more := domain, true; !found && more; {
			if _, rest, more = strings.Cut(rest, "."); more {
				via, found = routes["."+rest]
			}
		}
		switch {
		case found && via != nil:
			return via
		case !found && (def != nil || !s.MX.Enabled):
			return def
		}
		return []string{domain}
	}
}

func hopNames(hops []Smarthost) (names []string) {
	for _, h := range hops {
		names = append(names, net.JoinHostPort(h.Host, strconv.Itoa(int(h.Port))))
	}
	return names
}

// NextHops is Settings.Ways by the settings in force.
func (s *Server) NextHops(domain string) []string {
	if c := s.now(); c != nil {
		return c.ways(domain)
	}
	return nil
}
