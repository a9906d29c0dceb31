// Package pages reads the commands out of the documentation, for the tests that
// run them: test/docs those of synward on a stage, test/upgrade those that a
// host with the package and systemd is needed for.
package pages

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// What a block of commands needs, after the word console on its fence.
const (
	Stage   = ""        // an agent that runs
	Stopped = "stopped" // one that is stopped
	Host    = "host"    // a host with the package and systemd
)

// Block is a fenced block of a page.
type Block struct {
	Page     string   // its file
	Line     int      // of the fence
	Kind     string   // the fence's first word
	Needs    string   // what follows it
	Text     string   // without what the lines are indented by
	Commands []string // its lines after a $
}

// Where is the block's place for a person.
func (b Block) Where() string { return fmt.Sprintf("%s:%d", filepath.Base(b.Page), b.Line) }

// Blocks are all of a page.
func Blocks(page string) ([]Block, error) {
	text, err := os.ReadFile(page)
	if err != nil {
		return nil, fmt.Errorf("read a page: %w", err)
	}
	var out []Block
	inside := false
	for n, line := range strings.Split(string(text), "\n") {
		bare := strings.TrimSpace(line)
		info, fence := strings.CutPrefix(bare, "```")
		switch {
		case fence && inside:
			inside = false
		case fence:
			inside = true
			kind, needs, _ := strings.Cut(info, " ")
			out = append(out, Block{Page: page, Line: n + 1, Kind: kind, Needs: needs})
		case inside:
			last := &out[len(out)-1]
			last.Text += bare + "\n"
			if c, ok := strings.CutPrefix(bare, "$ "); ok {
				last.Commands = append(last.Commands, c)
			}
		}
	}
	return out, nil
}

// Commands are the console blocks of the pages that need this.
func Commands(needs string, files ...string) ([]Block, error) {
	var out []Block
	for _, page := range files {
		blocks, err := Blocks(page)
		if err != nil {
			return nil, err
		}
		out = append(out, slices.DeleteFunc(blocks, func(b Block) bool { return b.Kind != "console" || b.Needs != needs })...)
	}
	return out, nil
}

var (
	span    = regexp.MustCompile("`(?:sudo )?(synward\\s[^`]+)`")
	prompt  = regexp.MustCompile(`(?m)^\s*\$ (?:sudo )?(synward [^|><\n]+)`)
	comment = regexp.MustCompile(`\s#.*`)
	number  = regexp.MustCompile(`\bN\b`)
)

// Mentions are the command lines of synward that a page names, in its prose and
// in any block, without the brackets around what is optional, and with 1
// for N.
func Mentions(page string) ([]string, error) {
	text, err := os.ReadFile(page)
	if err != nil {
		return nil, fmt.Errorf("read a page: %w", err)
	}
	var out []string
	for _, m := range append(span.FindAllStringSubmatch(string(text), -1), prompt.FindAllStringSubmatch(string(text), -1)...) {
		line := strings.NewReplacer("[", " ", "]", " ", "|--", " --").Replace(comment.ReplaceAllString(m[1], ""))
		out = append(out, number.ReplaceAllString(strings.Join(strings.Fields(line), " "), "1"))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
