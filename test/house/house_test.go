// Package house holds the tree against the architecture of docs/architecture.md.
package house

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/synward/synward/"

// mayImport says, for each floor of the house, what of ours stands below it. The
// files are read here and not asked of `go list`, whose answer is cached.
var mayImport = map[string][]string{
	"loader/rule":       {},
	"loader":            {"loader"},
	"agent/policy":      {"agent/policy", "loader/rule"},
	"nameserver":        {"nameserver"},
	"agent":             {"agent", "loader", "nameserver"},
	"relay":             {"relay", "nameserver"},
	"cmd/logto":         {},
	"cmd/version":       {},
	"cmd/synward-relay": {"cmd/synward-relay", "cmd/logto", "cmd/version", "relay"},
	"cmd":               {"cmd", "agent", "relay", "loader", "nameserver"},
	"packaging":         {"cmd", "agent", "relay", "loader"},
	"test":              {"test", "cmd", "agent", "relay", "loader"},
}

// floor is the most particular row for a folder.
func floor(dir string) (string, bool) {
	best, found := "", false
	for f := range mayImport {
		if (dir == f || strings.HasPrefix(dir, f+"/")) && len(f) >= len(best) {
			best, found = f, true
		}
	}
	return best, found
}

func TestImportsStandOnTheirFloor(t *testing.T) {
	root := filepath.Join("..", "..")
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		files++
		rel, _ := filepath.Rel(root, path)
		checkFile(t, path, filepath.ToSlash(rel))
		return nil
	})
	if err != nil || files < 50 {
		t.Fatalf("walked %d files: %v", files, err)
	}
}

func checkFile(t *testing.T, path, rel string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	home, ok := floor(filepath.ToSlash(filepath.Dir(rel)))
	if !ok {
		t.Errorf("%s: stands on no floor of the house", rel)
		return
	}
	for _, imp := range file.Imports {
		name, _ := strconv.Unquote(imp.Path.Value)
		ours, isOurs := strings.CutPrefix(name, module)
		if !isOurs || strings.HasSuffix(rel, "_test.go") && strings.HasPrefix(ours, "test/") {
			continue
		}
		if !within(ours, mayImport[home]) {
			t.Errorf("%s imports %s: %s may import of ours only %v", rel, ours, home, mayImport[home])
		}
	}
}

func within(pkg string, floors []string) bool {
	for _, f := range floors {
		if pkg == f || strings.HasPrefix(pkg, f+"/") {
			return true
		}
	}
	return false
}
