package relay

import (
	"crypto/tls"
	"time"
)

// logEnd writes the session's one line: who it was and what came of it.
func (g *guard) logEnd() {
	user, version := "", "none"
	if g.session != nil {
		user = g.session.user
	}
	if g.tls != nil {
		version = tls.VersionName(g.tls.ConnectionState().Version)
	}
	g.log.Info("session ended", "user", user, "helo", g.helo, "tls", version,
		"messages", g.tally.messages, "refused", g.tally.refused, "took", time.Since(g.tally.began).Round(time.Millisecond))
}
