package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synward/synward/relay/account"
	"golang.org/x/crypto/bcrypt"
)

func TestUserImport(t *testing.T) {
	s, book := withAccounts(t)
	if _, stderr, code := s.run("secret\n", "user", "add", "alice", "--to", "a.example"); code != 0 {
		t.Fatal(stderr)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("horse"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rev := book.rev
	write(fmt.Sprintf("bob:%s\ncarol:$apr1$x$y\n", hash))
	if _, stderr, code := s.run("", "user", "import", file); code != 1 || !strings.Contains(stderr, "line 2") || strings.Count(stderr, "\n") != 1 || book.rev != rev {
		t.Errorf("a bad line: %d %q, %d written", code, stderr, book.rev-rev)
	}
	write(fmt.Sprintf("bob:%s\nAlice:%s\n", hash, hash))
	if out := s.must("user", "import", file, "--dry-run"); out != "dry run: would be 1 user added, 1 user kept as there already\n" || book.rev != rev {
		t.Errorf("dry run: %q", out)
	}
	s.must("user", "import", file)
	if a := book.get(t, "alice"); !account.Verify(a.Hash, "secret") {
		t.Error("alice has another password")
	}
	if b := book.get(t, "bob"); !account.Verify(b.Hash, "horse") || b.Created.IsZero() {
		t.Errorf("bob is %+v", b)
	}
	if out := s.must("user", "import", file, "--replace"); !strings.Contains(out, "1 user given another password") {
		t.Errorf("replace: %s", out)
	}
	if a := book.get(t, "alice"); !account.Verify(a.Hash, "horse") || len(a.Domains) != 1 {
		t.Errorf("alice is %+v", a)
	}
	rev = book.rev
	if s.must("user", "import", file, "--replace"); book.rev != rev {
		t.Error("the same again has written")
	}
	if out, stderr, code := s.run("dan:"+string(hash)+"\n", "user", "import", "-", "--json"); code != 0 || !strings.Contains(out, `"dan"`) {
		t.Errorf("from stdin: %d %s%s", code, out, stderr)
	}
	if _, _, code := s.run("", "user", "import", file+"x"); code != 1 {
		t.Errorf("no such file: exit status %d", code)
	}
}
