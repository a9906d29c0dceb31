package quota

import (
	"fmt"
	"strings"
	"time"
)

// Limits are what one key may hand in. 0: no limit.
type Limits struct {
	MessagesPerHour   int `toml:"messages_per_hour" json:"messages_per_hour,omitempty"`
	MessagesPerDay    int `toml:"messages_per_day" json:"messages_per_day,omitempty"`
	RecipientsPerHour int `toml:"recipients_per_hour" json:"recipients_per_hour,omitempty"`
	RecipientsPerDay  int `toml:"recipients_per_day" json:"recipients_per_day,omitempty"`
}

// maxLimit bounds a limit.
const maxLimit = 1_000_000_000

// Validate names the limit that is out of bounds.
func (l Limits) Validate() error {
	for _, v := range []struct {
		name string
		n    int
	}{
		{"messages_per_hour", l.MessagesPerHour}, {"messages_per_day", l.MessagesPerDay},
		{"recipients_per_hour", l.RecipientsPerHour}, {"recipients_per_day", l.RecipientsPerDay},
	} {
		if v.n < 0 || v.n > maxLimit {
			return fmt.Errorf("%s: %d is not between 0 (no limit) and %d", v.name, v.n, maxLimit)
		}
	}
	return nil
}

// Usage is what a key has handed in within the last hour and the last day.
type Usage struct {
	MessagesHour   int `json:"messages_hour"`
	MessagesDay    int `json:"messages_day"`
	RecipientsHour int `json:"recipients_hour"`
	RecipientsDay  int `json:"recipients_day"`
}

// Verdict says whether a key may hand in what it wants to.
type Verdict struct {
	Over  bool      // it may not
	Limit int       // which limit is used up
	What  string    // messages or recipients
	Per   string    // hour or day
	Until time.Time // when there is room again
	First bool      // nobody was told so far
}

// String is the limit that is used up: "100 messages an hour".
func (v Verdict) String() string {
	article := map[string]string{"hour": "an hour", "day": "a day"}[v.Per]
	what := v.What
	if v.Limit == 1 {
		what = strings.TrimSuffix(what, "s")
	}
	return fmt.Sprintf("%d %s %s", v.Limit, what, article)
}

// slotTime is the length of a slot, and how many others make up the windows.
const (
	slotTime  = 5 * time.Minute
	hourSlots = 12
	daySlots  = 288
)

// slot is what was counted in a stretch of time that ends with slot number at.
type slot struct {
	at          int64 // Unix time / slotTime
	msgs, rcpts int
}

// counter is the count of one key.
type counter struct {
	slots []slot // in order of time
	told  int64  // Unix time until which nobody need be told again
}

func slotOf(t time.Time) int64 { return t.Unix() / int64(slotTime/time.Second) }

// add counts in the slot at and returns its sum.
func (c *counter) add(at int64, msgs, rcpts int) slot {
	i := len(c.slots)
	for i > 0 && c.slots[i-1].at > at {
		i--
	}
	if i == 0 || c.slots[i-1].at != at {
		c.slots = append(c.slots, slot{})
		copy(c.slots[i+1:], c.slots[i:])
		c.slots[i] = slot{at: at}
		i++
	}
	s := &c.slots[i-1]
	s.msgs, s.rcpts = max(0, s.msgs+msgs), max(0, s.rcpts+rcpts)
	return *s
}

// prune forgets what is older than a day, and puts what is older than an hour
// into slots of an hour. What the clock of then put into the future is of now.
func (c *counter) prune(now int64) {
	c.told = min(c.told, (now+1+daySlots)*int64(slotTime/time.Second))
	kept := c.slots[:0]
	for _, s := range c.slots {
		s.at = min(s.at, now)
		if s.at < now-daySlots || s.msgs == 0 && s.rcpts == 0 {
			continue
		}
		if wide := s.at - s.at%hourSlots + hourSlots - 1; wide < now-hourSlots {
			s.at = wide
		}
		if n := len(kept); n > 0 && kept[n-1].at == s.at {
			kept[n-1].msgs += s.msgs
			kept[n-1].rcpts += s.rcpts
			continue
		}
		kept = append(kept, s)
	}
	c.slots = kept
}

func (c *counter) usage(now int64) (u Usage) {
	for _, s := range c.slots {
		if s.at < now-daySlots {
			continue
		}
		u.MessagesDay += s.msgs
		u.RecipientsDay += s.rcpts
		if s.at >= now-hourSlots {
			u.MessagesHour += s.msgs
			u.RecipientsHour += s.rcpts
		}
	}
	return u
}

// check says whether msgs and rcpts more are within l. Of several limits that
// are used up the one that lasts longest is named.
func (c *counter) check(l Limits, msgs, rcpts int, now int64) (v Verdict) {
	u := c.usage(now)
	for _, k := range []struct {
		limit, used, want int
		what, per         string
		slots             int64
	}{
		{l.MessagesPerHour, u.MessagesHour, msgs, "messages", "hour", hourSlots},
		{l.RecipientsPerHour, u.RecipientsHour, rcpts, "recipients", "hour", hourSlots},
		{l.MessagesPerDay, u.MessagesDay, msgs, "messages", "day", daySlots},
		{l.RecipientsPerDay, u.RecipientsDay, rcpts, "recipients", "day", daySlots},
	} {
		excess := k.used + k.want - k.limit
		if k.limit == 0 || excess <= 0 {
			continue
		}
		until := c.until(excess, k.slots, k.what == "messages", now)
		if !v.Over || until.After(v.Until) {
			v = Verdict{Over: true, Limit: k.limit, What: k.what, Per: k.per, Until: until}
		}
	}
	return v
}

// until is when excess of what is in the window has left it, or all of it.
func (c *counter) until(excess int, window int64, msgs bool, now int64) time.Time {
	end := now + 1
	for _, s := range c.slots {
		if s.at < now-window {
			continue
		}
		if end = s.at + window + 1; msgs {
			excess -= s.msgs
		} else {
			excess -= s.rcpts
		}
		if excess <= 0 {
			break
		}
	}
	return time.Unix(end*int64(slotTime/time.Second), 0).UTC()
}
