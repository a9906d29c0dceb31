package account

import "testing"

func TestMayReach(t *testing.T) {
	a := Account{Domains: []string{"one.example", ".two.example", "xn--bcher-kva.example"}, Denied: []string{".x.two.example"}}
	for domain, want := range map[string]bool{
		"one.example": true, "ONE.EXAMPLE": true, "a.one.example": false, "two.example": false, "b.two.example": true,
		"x.two.example": true, "y.x.two.example": false, "bücher.example": true, "BÜCHER.example": true, "three.example": false,
		"": false, "notwo.example": false, "[192.0.2.1]": false,
	} {
		if got := a.MayReach(domain); got != want {
			t.Errorf("MayReach(%q) = %v", domain, got)
		}
	}
	if !(Account{}).MayReach("any.example") || (Account{Denied: []string{"xn--bcher-kva.example"}}).MayReach("Bücher.example") {
		t.Error("without a list of what is allowed, all but what is denied is")
	}
}

func TestLimitsAreValidated(t *testing.T) {
	for _, ok := range []string{"example.org", ".example.org", "a", "_x.example"} {
		if err := ValidateDomain(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", ".", "a..b", "..a", "a.", "a b", "a@b", "bücher.example", "*", "*.a", "a,b", "[1.2.3.4]"} {
		if ValidateDomain(bad) == nil {
			t.Errorf("domain %q passed", bad)
		}
	}
	hash, err := Hash("x")
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]Account{
		"domain": {Domains: []string{"a b"}}, "denied": {Denied: []string{""}}, "size": {MaxSize: 10}, "negative": {MaxRecipients: -1},
	} {
		if a.Name, a.Hash = "a", hash; a.Validate() == nil {
			t.Errorf("bad %s passed", name)
		}
	}
}
