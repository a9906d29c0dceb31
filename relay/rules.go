package relay

import "github.com/synward/synward/relay/account"

// ask is all that decides who may relay what. It is asked at MAIL (no
// recipient yet), at each RCPT, and again for the whole envelope at DATA.
type ask struct {
	submission bool                     // a submission port (all but 25): nothing without AUTH
	tls        bool                     // the session is under TLS
	account    *account.Account         // who logged in, as the settings have him now; nil: nobody
	peer       *Peer                    // the source's relay right; nil: none
	domains    func(domain string) bool // relay domains: may anybody send there?
	utf8       bool                     // the client asked for SMTPUTF8
	from       path
	rcpt       *path // nil at MAIL
}

// decide says whether the relay takes this sender and, where one is given,
// this recipient: ansNone, or why not.
//
//   - An account, under TLS and not disabled, may use his senders, to the
//     domains that he may reach.
//   - A peer may use its senders, to anybody.
//   - Anybody else: on a submission port nothing; on port 25 any sender, but
//     only to relay domains.
func decide(a ask) answer {
	switch {
	case !a.utf8 && (!a.from.ascii() || a.rcpt != nil && !a.rcpt.ascii()):
		return ansNeedUTF8
	case a.account != nil && a.tls && !a.account.Disabled:
		if bad := maySend(a.account.Senders, a.from); bad != ansNone {
			return bad
		}
		if a.rcpt != nil && !a.account.MayReach(a.rcpt.domain) {
			return ansRcptNotYours
		}
		return ansNone
	case a.peer != nil:
		return maySend(a.peer.Senders, a.from)
	case a.submission && !a.tls:
		return ansTLSFirst
	case a.submission:
		return ansAuthFirst
	case a.rcpt == nil:
		return ansNone
	case a.domains == nil || !a.domains(a.rcpt.domain):
		return ansRelayDenied
	}
	return ansNone
}

// maySend lets the null sender through: a receipt (RFC 8098) has it.
func maySend(senders []string, from path) answer {
	if from.null() || (account.Account{Senders: senders}).MaySend(from.local, from.domain) {
		return ansNone
	}
	return ansSenderNotYours
}

// unauthorized says whether a refusal is an attempt at what the client has no
// right to, to be counted and reported, and not a mere mistake.
func unauthorized(a answer) bool {
	return a == ansRelayDenied || a == ansSenderNotYours || a == ansRcptNotYours || a == ansAuthFirst
}
