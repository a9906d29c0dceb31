package account

import (
	"bytes"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// exchange plays both sides, and says whether the server let the client in.
func exchange(t *testing.T, keys scram.StoredCredentials, password string) bool {
	t.Helper()
	c, err := scram.SHA256.NewClient("alice", password, "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return keys, nil })
	if err != nil {
		t.Fatal(err)
	}
	client, server, text := c.NewConversation(), s.NewConversation(), ""
	for range 2 {
		if text, err = client.Step(text); err != nil {
			t.Fatal(err)
		}
		if text, err = server.Step(text); err != nil {
			return false
		}
	}
	_, err = client.Step(text)
	return err == nil && server.Valid()
}

func TestScram(t *testing.T) {
	cred, err := scramOf("correct horse", 4096)
	if err != nil {
		t.Fatal(err)
	}
	a := Account{Name: "alice", Hash: "$2y$05$" + strings.Repeat("a", 53), Scram: cred}
	if err := a.Validate(); err != nil {
		t.Fatal(err)
	}
	keys, ok := a.ScramKeys()
	if !ok || keys.Iters != 4096 {
		t.Fatalf("keys %+v, %v", keys, ok)
	}
	if !exchange(t, keys, "correct horse") || exchange(t, keys, "correct house") {
		t.Error("the credential does not match its password alone")
	}
	a.Disabled = true
	if _, ok := a.ScramKeys(); ok {
		t.Error("a disabled account has keys")
	}
	for _, pw := range []string{"", strings.Repeat("x", maxPassword+1), "a\u0007b"} {
		if _, err := Scram(pw); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("Scram(%q): %v", pw, err)
		}
	}
	for _, bad := range []string{"x", strings.Replace(cred, "SCRAM-SHA-256", "SCRAM-SHA-1", 1), strings.Replace(cred, "4096", "4095", 1),
		strings.Replace(cred, "4096", "99999999", 1), cred + "=", cred[:len(cred)-8], strings.Replace(cred, "$4", "$04", 1)} {
		a := Account{Name: "alice", Hash: a.Hash, Scram: bad}
		if err := a.Validate(); err == nil {
			t.Errorf("%q is valid", bad)
		}
	}
}

// TestFakeScramKeys: what a stranger is shown is stable, his own, and of use to nobody.
func TestFakeScramKeys(t *testing.T) {
	a, again, other := FakeScramKeys([]byte("s"), "a"), FakeScramKeys([]byte("s"), "a"), FakeScramKeys([]byte("s"), "b")
	if a.Salt != again.Salt || a.Salt == other.Salt || a.Salt == FakeScramKeys([]byte("t"), "a").Salt || len(a.Salt) != saltBytes {
		t.Error("the salt is not one of its name and secret alone")
	}
	if bytes.Equal(a.StoredKey, a.ServerKey) || a.Iters != scramRounds {
		t.Errorf("odd keys %+v", a)
	}
	a.Iters = 4096
	if exchange(t, a, "x") {
		t.Error("somebody got in")
	}
}

// TestScramCost: what is stored has the cost that is documented.
func TestScramCost(t *testing.T) {
	cred, err := Scram("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := parseScram(cred); err != nil || keys.Iters != 65_000 {
		t.Errorf("%q: %v", cred, err)
	}
}
