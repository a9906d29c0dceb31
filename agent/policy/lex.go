package policy

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// field is one word of a line, as it stands there.
type field struct {
	text string
	col  int // in characters, from 1
}

// splitLine cuts a line into its fields. Spaces and tabs separate them,
// except between double quotes; # at the start of a field begins a comment.
func splitLine(line string) ([]field, *Problem) {
	if !utf8.ValidString(line) {
		return nil, &Problem{Col: 1, Msg: "the line is not valid UTF-8"}
	}
	var fields []field
	col := 1
	for rest := line; ; {
		trimmed := strings.TrimLeft(rest, " \t\r")
		col += len(rest) - len(trimmed)
		if trimmed == "" || trimmed[0] == '#' {
			return fields, nil
		}
		n, open := fieldLen(trimmed)
		if open {
			return nil, &Problem{Col: col, Msg: "a double quote is not closed on its line"}
		}
		fields = append(fields, field{text: trimmed[:n], col: col})
		col += utf8.RuneCountInString(trimmed[:n])
		rest = trimmed[n:]
	}
}

// fieldLen is the length in bytes of the field that s starts with, and
// whether a quote in it stays open.
func fieldLen(s string) (n int, open bool) {
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"':
			open = !open
		case !open && (c == ' ' || c == '\t' || c == '\r'):
			return i, false
		}
	}
	return len(s), open
}

// unquote takes a value out of its quotes, where it has them.
func unquote(s string) (string, error) {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if strings.Contains(s, `"`) {
		return "", fmt.Errorf("double quotes go around the whole value, and nowhere else")
	}
	return s, nil
}

// Problem is one thing wrong in a policy text, or worth a warning.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line"` // from 1
	Col  int    `json:"col"`  // in characters, from 1
	Msg  string `json:"msg"`
}

// Error returns "file:line:col: message".
func (p *Problem) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Col, p.Msg)
}

// maxProblems is how many problems Parse collects before it gives up.
const maxProblems = 10

// Problems are the first problems of a text, at least one.
type Problems []*Problem

// Error returns the first problem, and how many more there are.
func (ps Problems) Error() string {
	switch n := len(ps); {
	case n == 1:
		return ps[0].Error()
	case n < maxProblems:
		return fmt.Sprintf("%s (and %d more)", ps[0], n-1)
	}
	return fmt.Sprintf("%s (and %d or more others)", ps[0], maxProblems-1)
}
