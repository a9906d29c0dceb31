package deliver

import (
	"errors"
	"fmt"
	"io"

	"github.com/synward/synward/relay/queue"
)

// sign makes the fields that go before the message. That is done here, not
// when it was accepted: the hash must be known before the first octet is sent,
// and in the queue the whole message can be read twice without holding it in
// memory. What a stranger has sent in is not signed; what an account, a source with
// the right to relay or we ourselves have sent is.
func (a *attempt) sign() error {
	report := a.it.From == "" && !a.it.Source.IsValid()
	if a.s.Sign == nil || a.it.User == "" && !a.it.Trusted && !report {
		return nil
	}
	body, err := a.e.opt.Queue.Body(a.it.ID)
	if err != nil {
		return err
	}
	defer func(r io.Closer) { _ = r.Close() }(body) // only read
	a.head, err = a.s.Sign(body)
	return err
}

// refuseAll puts everybody off because of err.
func (a *attempt) refuseAll(err error) {
	if errors.Is(err, queue.ErrCorrupt) || errors.Is(err, queue.ErrNotFound) {
		a.gone = true // set aside and said so, or taken by an operator
		return
	}
	a.e.opt.Log.Error("prepare a delivery", "item", a.it.ID, "error", err)
	a.tried = true
	for _, i := range a.left {
		a.last[i] = answer{rcpt: i, reply: ours(451, "4.3.0", clean(fmt.Sprint(err)))}
	}
}
