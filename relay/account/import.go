package account

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// maxImportLine bounds a line of an imported file, in bytes.
const maxImportLine = 4096

// Import reads accounts from a file as htpasswd writes it: name:hash, one a
// line, with bcrypt or argon2 hashes. Empty lines and those that begin with #
// are passed over, and so is what stands behind a second colon. Dovecot's
// {BLF-CRYPT} and {ARGON2ID} before a hash are understood. Names are put in
// lower case, as all of ours are. An error names the line; then there are no
// accounts.
func Import(r io.Reader) ([]Account, error) {
	var all []Account
	seen := map[string]int{}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, maxImportLine), maxImportLine)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("line %d: is not name:hash", n)
		}
		hash, _, _ := strings.Cut(rest, ":")
		a := Account{Name: strings.ToLower(name), Hash: stripScheme(hash)}
		if err := a.Validate(); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if other, dup := seen[a.Name]; dup {
			return nil, fmt.Errorf("line %d: user %s is in line %d already", n, a.Name, other)
		}
		seen[a.Name] = n
		all = append(all, a)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	return all, nil
}

// stripScheme takes off the name of a hash's kind that Dovecot puts before it.
func stripScheme(hash string) string {
	for _, scheme := range []string{"{BLF-CRYPT}", "{ARGON2ID}", "{ARGON2I}", "{CRYPT}"} {
		if len(hash) > len(scheme) && strings.EqualFold(hash[:len(scheme)], scheme) {
			return hash[len(scheme):]
		}
	}
	return hash
}
