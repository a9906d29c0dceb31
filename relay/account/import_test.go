package account

import (
	"encoding/base64"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

func TestImport(t *testing.T) {
	b, err := bcrypt.GenerateFromPassword([]byte("horse"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	y := "$2y" + string(b[3:]) // as Apache's htpasswd -B writes it
	b64 := base64.RawStdEncoding
	argon2i := "$argon2i$v=19$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$" + b64.EncodeToString(argon2.Key([]byte("horse"), []byte("0123456789abcdef"), 2, 64, 1, 32))
	id, err := Hash("horse")
	if err != nil {
		t.Fatal(err)
	}
	all, err := Import(strings.NewReader("# users\n\nalice:" + y + "\nBob@Example.org:{BLF-CRYPT}" + string(b) + "\r\ncarol:" + id + ":1000:1000::/home/carol\ndan:{ARGON2I}" + argon2i))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 4 || all[0].Name != "alice" || all[1].Name != "bob@example.org" || all[2].Hash != id {
		t.Fatalf("accounts are %+v", all)
	}
	for _, a := range all {
		if !Verify(a.Hash, "horse") || Verify(a.Hash, "Horse") || Verify(a.Hash, "") {
			t.Errorf("%s: his password is not the one", a.Name)
		}
	}
	for name, text := range map[string]string{
		"line 1: is not name:hash": "alice\n", "line 2: ": "alice:" + y + "\nbob:$apr1$x$y\n", "line 1: user name": "a b:" + y,
		"line 2: user alice is in line 1": "alice:" + y + "\nALICE:" + y, "argon2 salt": "a:" + strings.Replace(argon2i, "MDE", "!!!", 1),
		"token too long": "a:" + strings.Repeat("x", maxImportLine),
	} {
		if got, err := Import(strings.NewReader(text)); err == nil || got != nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func FuzzImport(f *testing.F) {
	f.Add("alice:$2y$05$abcdefghijklmnopqrstuuFKo3JRCDGYtAIpD2lEWMwnVZJT8SFUG\n#x\n\n")
	for _, h := range badHashes {
		f.Add("a:" + h)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := Import(strings.NewReader(text))
		for _, a := range all {
			if err != nil || a.Validate() != nil {
				t.Errorf("%q gives %+v, %v", text, a, err)
			}
		}
	})
}
