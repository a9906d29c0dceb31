package relay

import (
	"strings"
	"testing"
)

func TestWays(t *testing.T) {
	smart := []Smarthost{{Host: "one.example", Port: 587}, {Host: "2001:db8::1", Port: 25}}
	set := Settings{Smarthosts: smart, Routes: []Route{
		{Domains: []string{"partner.example", ".sub.example"}, MX: true},
		{Domains: []string{"in.sub.example"}, Smarthosts: []Smarthost{{Host: "in.example", Port: 24}}},
	}}
	for domain, want := range map[string]string{
		"else.example": "one.example:587 [2001:db8::1]:25", "Partner.example": "partner.example",
		"x.partner.example": "one.example:587 [2001:db8::1]:25", "a.b.sub.example": "a.b.sub.example",
		"in.sub.example": "in.example:24", "sub.example": "one.example:587 [2001:db8::1]:25",
	} {
		if got := strings.Join(set.Ways()(domain), " "); got != want {
			t.Errorf("%s goes to %q, want %q", domain, got, want)
		}
	}
	if got := (Settings{MX: MXConfig{Enabled: true}}).Ways()("x.example"); len(got) != 1 || got[0] != "x.example" {
		t.Errorf("by MX: %v", got)
	}
	if got := (Settings{}).Ways()("x.example"); got != nil {
		t.Errorf("nowhere: %v", got)
	}
}
