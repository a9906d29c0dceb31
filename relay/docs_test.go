package relay

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestEveryReplyIsDocumented: docs/relay.md has them all, as they are.
func TestEveryReplyIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../docs/relay.md")
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for a := ansNone + 1; a < answers; a++ {
		r := table[a]
		enhanced := ""
		if r.enh[0] != 0 {
			enhanced = fmt.Sprintf("%d.%d.%d", r.enh[0], r.enh[1], r.enh[2])
		}
		if row := fmt.Sprintf("| %d | %s | %s |", r.code, enhanced, strings.ReplaceAll(r.text, "%s", "…")); !strings.Contains(string(b), row) {
			missing[row] = true
		}
	}
	for row := range missing {
		t.Errorf("docs/relay.md has no row\n%s", row)
	}
}
