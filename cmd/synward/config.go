package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent"
	"github.com/synward/synward/agent/metrics"
	"github.com/synward/synward/cmd/logto"
	"github.com/synward/synward/relay"
)

// file is the whole configuration file: each organ's section, with its own
// type and its own judgement.
type file struct {
	agent.Config
	Relay   relay.Config   `toml:"relay"`
	Metrics metrics.Config `toml:"metrics"`
	Log     logto.Config   `toml:"log"`
}

// loadFile reads and validates a configuration file. Its error is one line
// with the file, and the line and column where there is one.
func loadFile(path string) (file, error) {
	f := file{Config: agent.DefaultConfig(), Relay: relay.DefaultConfig(), Log: logto.Default()}
	doc, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, fmt.Errorf("%s: no such file; write one that names your interface ([filter] interfaces = [\"eth0\"]), or give another with --config", path)
	}
	if err != nil {
		return f, fmt.Errorf("read configuration: %w", err)
	}
	dec := toml.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return f, decodeError(path, err)
	}
	if err := errors.Join(f.Config.Validate(), f.Relay.Validate(), f.Metrics.Validate(), f.Log.Validate()); err != nil {
		return f, placed(path, doc, err)
	}
	return f, nil
}

// decodeError is the decoder's error as file:line:column: what is wrong.
func decodeError(path string, err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		e := &unknown.Errors[0]
		row, col := e.Position()
		more := ""
		if n := len(unknown.Errors) - 1; n > 0 {
			more = fmt.Sprintf(" (and %d more)", n)
		}
		return fmt.Errorf("%s:%d:%d: unknown key %s%s; mind its spelling and its section", path, row, col, strings.Join(e.Key(), "."), more)
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		row, col := bad.Position()
		what := strings.TrimPrefix(bad.Error(), "toml: ")
		// What the decoder says of a wrong type names types of ours.
		if kind, ok := strings.CutPrefix(what, "cannot decode TOML "); ok {
			kind, _, _ = strings.Cut(kind, " ")
			what = fmt.Sprintf("%s: a value of another type belongs here, not %s", strings.Join(bad.Key(), "."), kind)
		} else if value, _, ok := strings.Cut(what, " cannot be stored in "); ok {
			what = value + " is out of range"
		}
		return fmt.Errorf("%s:%d:%d: %s", path, row, col, what)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// placed puts the place of its key before each joined error.
func placed(path string, doc []byte, err error) error {
	var lines []string
	for _, line := range strings.Split(err.Error(), "\n") {
		key, _, _ := strings.Cut(line, ": ")
		lines = append(lines, place(path, doc, key)+line)
	}
	return errors.New(strings.Join(lines, "; "))
}

// index is the [n] in a key such as relay.listen[1].port.
var index = regexp.MustCompile(`\[\d+\]`)

// place is "file:line:column: " of a key, of the nearest one around it where
// it is not in the file itself, or else of the file.
func place(path string, doc []byte, key string) string {
	for want := index.ReplaceAllString(key, ""); want != ""; {
		if line, col, ok := locate(doc, want); ok {
			return fmt.Sprintf("%s:%d:%d: ", path, line, col)
		}
		i := strings.LastIndexByte(want, '.')
		if i < 0 {
			break
		}
		want = want[:i]
	}
	return path + ": "
}

// locate finds the first table or key-value of a dotted key.
func locate(doc []byte, want string) (line, col int, ok bool) {
	p := unstable.Parser{}
	p.Reset(doc)
	table := ""
	for p.NextExpression() {
		e := p.Expression()
		var parts []string
		var at unstable.Range
		for k := e.Key(); k.Next(); {
			if len(parts) == 0 {
				at = k.Node().Raw
			}
			parts = append(parts, string(k.Node().Data))
		}
		key := strings.Join(parts, ".")
		if e.Kind == unstable.Table || e.Kind == unstable.ArrayTable {
			table = key
		} else if table != "" {
			key = table + "." + key
		}
		if key == want {
			start := p.Shape(at).Start
			return start.Line, start.Column, true
		}
	}
	return 0, 0, false
}

// places is the little of the configuration that commands other than the agent
// need: where the socket and the pins are. A default file that is missing or
// not readable leaves the defaults; one that was asked for must be good.
func places(c *cli.Context) (agent.Config, error) {
	conf := agent.DefaultConfig()
	socket := c.String("socket")
	if c.IsSet("config") {
		f, err := loadFile(c.String("config"))
		if err != nil {
			return conf, err
		}
		conf = f.Config
	} else if f, err := loadFile(c.String("config")); err == nil {
		conf = f.Config
	}
	if socket != "" {
		conf.Control.Socket = socket
	}
	return conf, nil
}
