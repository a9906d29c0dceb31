package deliver

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/synward/synward/relay/queue"
)

// maxRcpts is how many recipients a transaction has: what every server must
// take (RFC 5321 4.5.3.1.8).
const maxRcpts = 100

// group is the recipients that go the same way.
type group struct {
	hops  []Hop
	rcpts []int
}

// groups sorts the recipients by where they go. Those that no way is known for
// keep that as their answer.
// Those that there will never be one for end here.
func (a *attempt) groups(ctx context.Context) ([]group, error) {
	var list []group
	var failed []answer
	known := map[string]way{} // a router may give hops of equal rank in any order
	for _, i := range a.left {
		domain := domainOf(a.it.Rcpts[i].Addr)
		w, ok := known[domain]
		if !ok {
			w = a.route(ctx, domain)
			known[domain] = w
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		if w.refusal.Code != 0 {
			a.last[i], a.tried = answer{rcpt: i, reply: w.refusal}, true
			if w.refusal.permanent() {
				failed = append(failed, a.last[i])
			}
			continue
		}
		at := slices.IndexFunc(list, func(g group) bool { return slices.Equal(g.hops, w.hops) })
		if at < 0 {
			at, list = len(list), append(list, group{hops: w.hops})
		}
		list[at].rcpts = append(list[at].rcpts, i)
	}
	_, err := a.fail(failed, queue.Failed)
	return list, err
}

// way is where a domain's mail goes, or why nowhere.
type way struct {
	hops    []Hop
	refusal Reply
}

func (a *attempt) route(ctx context.Context, domain string) way {
	hops, err := a.s.Router.Route(ctx, domain)
	var re *RouteError
	switch {
	case errors.As(err, &re):
		return way{refusal: ours(re.Code, re.Enhanced, clean(re.Text))}
	case err != nil:
		return way{refusal: ours(451, "4.4.4", clean(err.Error()))}
	case len(hops) == 0:
		return way{refusal: ours(451, "4.4.4", "no next hop")}
	}
	return way{hops: hops}
}

// domainOf returns what follows the last @, in lower case: a quoted local part
// may hold one of its own.
func domainOf(addr string) string {
	return strings.ToLower(addr[strings.LastIndexByte(addr, '@')+1:])
}

// group tries the hops in order, each with those whom the ones before did not end.
func (a *attempt) group(ctx, hard context.Context, g group) error {
	for _, hop := range g.hops {
		if len(g.rcpts) == 0 || a.gone || ctx.Err() != nil {
			break
		}
		h := a.e.hop(hop)
		now := a.e.opt.Now()
		if h.line.full(a.it.ID) { // no reason to trouble a backup
			a.busy = append(a.busy, h)
			a.wait(now.Add(parkTime))
			break
		}
		p, again, why := h.admit(now, a.it.Forced, a.s.Hop)
		if p == passNo {
			a.isDown(g.rcpts, again, why)
			continue
		}
		var err error
		if g.rcpts, err = a.tryHop(ctx, hard, h, p, g.rcpts); err != nil {
			return err
		}
	}
	return nil
}

// isDown notes that recipients wait for a hop that is down.
func (a *attempt) isDown(rcpts []int, again time.Time, why string) {
	a.wait(again)
	for _, i := range rcpts {
		if _, known := a.last[i]; !known {
			a.last[i] = answer{rcpt: i, reply: ours(451, "4.4.1", why)}
		}
	}
}

// tryHop sends to all of the recipients, in as many transactions as it takes,
// and returns those who are left.
func (a *attempt) tryHop(ctx, hard context.Context, h *hopState, p pass, rcpts []int) ([]int, error) {
	var left []int
	for len(rcpts) > 0 {
		now := rcpts[:min(len(rcpts), maxRcpts)]
		rest := rcpts[len(now):]
		leave, err := a.place(ctx, h)
		if err != nil {
			return append(left, rcpts...), nil
		}
		if ok, again, why := h.stillUp(a.e.opt.Now(), p, a.s.Hop); !ok {
			leave()
			a.isDown(rcpts, again, why)
			return append(left, rcpts...), nil
		}
		a.tried = true
		list, connected, err := a.transact(hard, h, now)
		leave()
		if !connected {
			a.wait(h.failed(a.e.opt.Now(), err, a.s.Hop))
		}
		if errors.Is(err, queue.ErrCorrupt) || errors.Is(err, queue.ErrNotFound) {
			a.gone = true // the queue has set it aside and said so, or an operator took it
			return nil, nil
		}
		ended, retry, err2 := a.book(h, now, list, err)
		if err2 != nil {
			return nil, err2
		}
		if err != nil && len(list) < len(now) || ctx.Err() != nil {
			return append(left, append(retry, rest...)...), nil
		}
		rcpts = rest
		for _, i := range retry {
			// Too many recipients for one transaction (RFC 5321 4.5.3.1.10): the next takes more.
			if rep := a.last[i].reply; ended > 0 && rep.Code == 452 {
				rcpts = append(rcpts, i)
			} else {
				left = append(left, i)
			}
		}
	}
	return left, nil
}

// book records a transaction's answers at once and returns who is still left.
func (a *attempt) book(h *hopState, asked []int, list []answer, cause error) (ended int, left []int, err error) {
	answered := map[int]bool{}
	var results []queue.Result
	var failed, relayed []answer
	for _, ans := range list {
		answered[ans.rcpt] = true
		a.last[ans.rcpt], a.hopOf[ans.rcpt] = ans, h.hop.String()
		switch {
		case ans.reply.positive():
			results = append(results, queue.Result{Rcpt: ans.rcpt, Status: queue.Delivered, Reply: ans.reply.String()})
			if !ans.dsn && slices.Contains(a.it.Rcpts[ans.rcpt].Notify, "SUCCESS") {
				relayed = append(relayed, ans)
			}
		case ans.reply.permanent():
			failed = append(failed, ans)
		default:
			left = append(left, ans.rcpt)
		}
	}
	for _, i := range asked {
		if !answered[i] {
			a.last[i], a.hopOf[i] = answer{rcpt: i, reply: ours(451, "4.4.2", clean(cause.Error()))}, h.hop.String()
			left = append(left, i)
		}
	}
	// The delivered first: should the report fail, they must not go out again.
	if err := a.end(results, Delivered); err != nil {
		return 0, nil, err
	}
	if err := a.e.report(a, relayed, actionRelayed); err != nil {
		a.e.opt.Log.Warn("report a delivery that was asked for", "item", a.it.ID, "error", err)
	}
	more, err := a.fail(failed, queue.Failed)
	return len(results), append(left, more...), err
}

// fail ends recipients for good, once the sender's report is in the queue. It
// returns those who must stay because it cannot be.
func (a *attempt) fail(list []answer, status queue.Status) (left []int, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	if err := a.e.report(a, list, actionFailed); err != nil {
		a.e.opt.Log.Error("queue a bounce: the message stays until that works", "item", a.it.ID, "error", err)
		for _, ans := range list {
			left = append(left, ans.rcpt)
		}
		return left, nil
	}
	results := make([]queue.Result, len(list))
	for i, ans := range list {
		results[i] = queue.Result{Rcpt: ans.rcpt, Status: status, Reply: ans.reply.String()}
	}
	return nil, a.end(results, Bounced)
}

// end books recipients that are through with the queue.
func (a *attempt) end(results []queue.Result, k Kind) error {
	if len(results) == 0 {
		return nil
	}
	all, err := a.e.opt.Queue.Done(a.it.ID, results)
	if err != nil {
		return err
	}
	a.gone = a.gone || all
	for _, r := range results {
		a.left = slices.DeleteFunc(a.left, func(i int) bool { return i == r.Rcpt })
		a.observe(r.Rcpt, k, time.Time{})
	}
	return nil
}

func (a *attempt) observe(rcpt int, k Kind, next time.Time) {
	now := a.e.opt.Now()
	o := Outcome{
		Time: now, Kind: k, Item: a.it.ID, User: a.it.User, From: a.it.From, Rcpt: a.it.Rcpts[rcpt].Addr,
		Hop: a.hopOf[rcpt], Reply: a.last[rcpt].reply.String(), Delay: now.Sub(a.it.Received), Next: next,
	}
	a.e.opt.Log.Info("delivery", "outcome", string(k), "item", o.Item, "user", o.User, "from", o.From, "rcpt", o.Rcpt,
		"next_hop", o.Hop, "reply", o.Reply, "took", o.Delay.Round(time.Millisecond))
	a.e.opt.Observe(o)
}

// wait notes when a hop may be up again; the earliest counts.
func (a *attempt) wait(t time.Time) {
	if a.again.IsZero() || t.Before(a.again) {
		a.again = t
	}
}

// postpone puts off what is left, or gives it up where it has waited too long.
func (a *attempt) postpone() error {
	err := a.putOff()
	if err != nil || a.gone {
		return err
	}
	for _, h := range a.busy {
		h.line.park(a.it.ID)
		h.line.call(false, a.e.opt.Queue.Ready) // room may have come up meanwhile, and nobody left to say so
	}
	return nil
}

func (a *attempt) putOff() error {
	now := a.e.opt.Now()
	if len(a.last) == 0 { // the engine is ending, or the hop has its hands full
		if len(a.busy) == 0 {
			a.again = now
		}
		return a.e.opt.Queue.Postpone(a.it.ID, a.again, "")
	}
	if now.Sub(a.it.Received) >= a.s.Expire {
		var list []answer
		for _, i := range a.left {
			ans := a.last[i]
			why := "not delivered in " + a.s.Expire.String() + "; last: " + ans.reply.String()
			ans.reply = ours(554, "5.4.7", why)
			a.last[i] = ans
			list = append(list, ans)
		}
		if _, err := a.fail(list, queue.Expired); err != nil || a.gone {
			return err
		}
	}
	next := now.Add(a.s.Item.after(a.it.Attempts + 1))
	if !a.again.IsZero() && (!a.tried || a.again.Before(next)) {
		next = a.again // it is the hop's fault: no longer than that takes
	}
	why := ""
	for _, i := range a.left {
		if _, known := a.last[i]; !known {
			continue
		}
		if why = a.last[i].reply.String(); a.tried || a.it.LastErr == "" {
			a.observe(i, Deferred, next)
		}
	}
	if !a.tried {
		return a.e.opt.Queue.Postpone(a.it.ID, next, why)
	}
	return a.e.opt.Queue.Settle(a.it.ID, queue.Update{Next: next, Err: why, Warned: a.notice(now, next)})
}

// notice tells the sender of a delay, once. It says whether it did.
func (a *attempt) notice(now, next time.Time) bool {
	const asked = 4 * time.Hour // for NOTIFY=DELAY where no time is set
	after := a.s.Notice
	if after == 0 {
		after = asked
	}
	if a.it.Warned || now.Sub(a.it.Received) < after {
		return false
	}
	var list []answer
	for _, i := range a.left {
		if n := a.it.Rcpts[i].Notify; slices.Contains(n, "DELAY") || len(n) == 0 && a.s.Notice > 0 {
			list = append(list, a.last[i])
		}
	}
	if err := a.e.report(a, list, actionDelayed); err != nil {
		a.e.opt.Log.Warn("report a delay", "item", a.it.ID, "error", err)
		return false
	}
	return len(list) > 0
}
