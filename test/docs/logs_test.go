package docs

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/test/stage"
)

// documented reads docs/logs.md: the keys of each line that has a row of its
// own, and every key that is explained.
func documented(t *testing.T) (lines map[string][]string, keys []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	lines = map[string][]string{}
	words := regexp.MustCompile("`([a-z_ ]+)`")
	for _, row := range strings.Split(string(text), "\n") {
		cells := strings.Split(row, "|")
		all := func(cell string) (out []string) {
			for _, m := range words.FindAllStringSubmatch(cell, -1) {
				out = append(out, m[1])
			}
			return out
		}
		switch names := all(cells[min(1, len(cells)-1)]); len(cells) {
		case 5: // line, when, keys
			if len(names) == 1 {
				lines[names[0]] = append(all(cells[3]), "time", "level", "msg")
			}
		case 4: // keys, meaning
			keys = append(keys, names...)
		}
	}
	if len(lines) < 6 || len(keys) < 40 {
		t.Fatalf("docs/logs.md has %d lines and %d keys", len(lines), len(keys))
	}
	return lines, append(keys, "time", "level", "msg")
}

// Every key that any line of the source has is in the table, and no other.
func TestEveryKeyOfTheLogIsDocumented(t *testing.T) {
	_, keys := documented(t)
	used := map[string]bool{"time": true, "level": true, "msg": true}
	for _, dir := range []string{"agent", "relay", "cmd", "loader"} {
		err := filepath.WalkDir("../../"+dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err == nil {
				ast.Inspect(f, func(n ast.Node) bool { return addKeys(used, n) })
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for key := range used {
		if !slices.Contains(keys, key) {
			t.Errorf("docs/logs.md does not explain %q", key)
		}
	}
	for _, key := range keys {
		if !used[key] {
			t.Errorf("docs/logs.md explains %q, which no line has", key)
		}
	}
}

// addKeys takes the keys of a call of a logger.
func addKeys(used map[string]bool, n ast.Node) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return true
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	first := map[string]int{"Info": 1, "Warn": 1, "Error": 1, "Debug": 1, "With": 0}
	from, isLog := 0, false
	if ok {
		from, isLog = first[method.Sel.Name]
	}
	if !isLog || from == 1 && (len(call.Args) == 0 || !isMessage(call.Args[0])) {
		return true
	}
	for i := from; i < len(call.Args); i += 2 {
		if isString(call.Args[i]) {
			key, _ := strconv.Unquote(call.Args[i].(*ast.BasicLit).Value)
			used[key] = true
		}
	}
	return true
}

// isMessage says whether this is a message: a string, or one put together.
func isMessage(e ast.Expr) bool {
	_, sum := e.(*ast.BinaryExpr)
	return sum || isString(e)
}

func isString(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind == token.STRING
}

// What a real session, delivery and drop write has just the documented keys.
func TestLinesHaveTheDocumentedKeys(t *testing.T) {
	lines, keys := documented(t)
	s := stage.New(t, build(t), "[log]\nformat = \"json\"\n")
	s.StartAgent()
	for _, args := range [][]string{{"allow", "add", stage.ClientPrefix}, {"user", "add", "alice", "--senders", "example.net"}} {
		if out, code := s.SynwardInput("a long password\n", args...); code != 0 {
			t.Fatal(out)
		}
	}
	if got := stage.Knock(s.Stranger, stage.EdgeForStranger+":587", time.Second); got != "silence" {
		t.Fatalf("the stranger met %s", got)
	}
	l := stage.Letter{User: "alice", Password: "a long password", From: "alice@example.net", To: "bob@example.org", Data: "Subject: x\r\n\r\nx\r\n"}
	if err := s.Submit(s.Client, stage.EdgeForClient+":587", l); err != nil {
		t.Fatal(err)
	}
	l.User = ""
	if err := s.Submit(s.Client, stage.EdgeForClient+":587", l); err == nil {
		t.Fatal("accepted without a login")
	}
	wanted := []string{"attempts dropped", "session ended", "accepted", "refused", "delivery"}
	seen := map[string]map[string]any{}
	for deadline := time.Now().Add(30 * time.Second); len(seen) < len(wanted); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("of %v only %v came:\n%s", wanted, slices.Collect(maps.Keys(seen)), s.Log())
		}
		readLog(t, s.Log(), wanted, keys, seen)
	}
	for msg, line := range seen {
		want := slices.Sorted(slices.Values(lines[msg]))
		if got := slices.Sorted(maps.Keys(line)); !slices.Equal(got, want) {
			t.Errorf("%s has the keys\n%v, documented are\n%v", msg, got, want)
		}
	}
	if got := seen["attempts dropped"]; got["source"] != stage.StrangerAddr || got["port"] != 587.0 || got["reason"] != "no-entry" {
		t.Errorf("a drop: %v", got)
	}
	if got := seen["delivery"]; got["outcome"] != "delivered" || got["item"] != seen["accepted"]["item"] {
		t.Errorf("a delivery: %v of %v", got, seen["accepted"])
	}
}

// readLog puts the first line of each wanted kind into seen, and holds every
// line against the form: an object that says which component speaks, no key
// twice, none that is not explained.
func readLog(t *testing.T, log string, wanted, keys []string, seen map[string]map[string]any) {
	t.Helper()
	whole := log[:strings.LastIndexByte(log, '\n')+1]
	for _, text := range strings.Split(strings.TrimSpace(whole), "\n") {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("no JSON: %v: %s", err, text)
		}
		if line["component"] == nil {
			t.Fatalf("nobody says it: %s", text)
		}
		for key := range line {
			if !slices.Contains(keys, key) || strings.Count(text, `,"`+key+`":`) > 1 {
				t.Fatalf("key %q is not explained, or there twice: %s", key, text)
			}
		}
		if msg, _ := line["msg"].(string); seen[msg] == nil && slices.Contains(wanted, msg) {
			seen[msg] = line
		}
	}
}
