package account

import (
	"strings"
	"testing"
)

func TestHashIsVerifiedAndSalted(t *testing.T) {
	a, err := Hash("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Hash("correct horse")
	if a == b {
		t.Error("two hashes of one password are equal: no salt")
	}
	if !strings.HasPrefix(a, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash is %q", a)
	}
	for pw, want := range map[string]bool{"correct horse": true, "correct hors": false, "": false, "Correct horse": false} {
		if got := Verify(a, pw); got != want {
			t.Errorf("Verify(%q) = %v", pw, got)
		}
	}
}

func TestHashRefusesBadPasswords(t *testing.T) {
	for _, pw := range []string{"", strings.Repeat("x", maxPassword+1)} {
		if _, err := Hash(pw); err == nil {
			t.Errorf("a password of %d bytes was hashed", len(pw))
		}
	}
}

// badHashes are what a damaged or hostile store may hold.
var badHashes = []string{
	"", "x", "$argon2id$v=19$m=19456,t=2,p=1$$", "$2y$10$abcdefghijklmnopqrstuv", "$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/", "{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=",
	"$2y$31$abcdefghijklmnopqrstuuFKo3JRCDGYtAIpD2lEWMwnVZJT8SFUG", "$2y$05$abcdefghijklmnopqrstuuFKo3JRCDGYtAIpD2lEWMwnVZJT8SFU ",
	"$argon2id$v=16$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=4294967295,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=19456,t=999,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=19456,t=2,p=0$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	"$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$",
	"$argon2id$v=19$m=19456,t=2,p=1,x=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
}

func TestVerifyTakesNoBadHash(t *testing.T) {
	for _, h := range badHashes {
		if Verify(h, "") || Verify(h, "x") {
			t.Errorf("hash %q matched", h)
		}
		if (Account{Name: "a", Hash: h}).Validate() == nil {
			t.Errorf("account with hash %q is valid", h)
		}
	}
}

func TestValidateName(t *testing.T) {
	for _, ok := range []string{"alice", "a", "alice@example.org", "a.b_c-d+e", "7up"} {
		if err := ValidateName(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "Alice", "a b", "-a", "a\x00", "é", "a\n", strings.Repeat("a", 129), "a/b", "a=b"} {
		if ValidateName(bad) == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func TestMaySend(t *testing.T) {
	a := Account{Senders: []string{"alice@example.org", "example.net", "@example.com"}}
	for addr, want := range map[[2]string]bool{
		{"alice", "example.org"}: true, {"alice", "EXAMPLE.org"}: true, {"Alice", "example.org"}: false,
		{"bob", "example.org"}: false, {"bob", "example.net"}: true, {"x", "example.com"}: true,
		{"x", "sub.example.com"}: false, {"", ""}: false, {"alice@example.org", "evil.example"}: false,
	} {
		if got := a.MaySend(addr[0], addr[1]); got != want {
			t.Errorf("MaySend(%q) = %v", addr, got)
		}
	}
	if !(Account{}).MaySend("x", "y") {
		t.Error("an account without a list of senders may not send")
	}
	for _, bad := range []string{"", "@", "a@", "a b@c", ".x", "x.", "a@b@c"} {
		if ValidateSender(bad) == nil {
			t.Errorf("sender %q passed", bad)
		}
	}
}

func FuzzParsePHC(f *testing.F) {
	for _, h := range badHashes {
		f.Add(h)
	}
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parsePHC(s)
		if err == nil && (h.memory > 1<<20 || h.time > 16 || h.lanes == 0 || len(h.key) < 16) {
			t.Errorf("%q passed with %+v", s, h)
		}
	})
}
