package main

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/relay/dkim"
)

func dkimCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:  "dkim",
		Usage: "keys that the relay signs mail with",
		Subcommands: []*cli.Command{{
			Name: "keygen", Usage: "make a domain's key and say what to publish", ArgsUsage: "DOMAIN",
			Description: "The private key goes to a file that only its owner can read. Where there is one already it stays, and its record is shown again.",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "selector", Usage: "`NAME` of the key below the domain", Value: "synward"},
				&cli.StringFlag{Name: "type", Usage: "rsa, or ed25519, which not all receivers can verify", Value: dkim.RSA},
				&cli.StringFlag{Name: "out", Usage: "key `FILE` (default: dkim/DOMAIN.SELECTOR.pem beside the configuration)"},
				dryRunFlag(), jsonFlag(),
			},
			Action: func(c *cli.Context) error { return dkimKeygen(c, s) },
		}},
	}
}

// madeKey is what keygen answers.
type madeKey struct {
	Domain   string `json:"domain"`
	Selector string `json:"selector"`
	File     string `json:"file"`
	Changed  bool   `json:"changed"` // the key is new
	dkim.Record
}

func dkimKeygen(c *cli.Context, s streams) error {
	if err := argCount(c, 1, 1); err != nil {
		return err
	}
	k := madeKey{Domain: strings.ToLower(strings.TrimSuffix(c.Args().First(), ".")), Selector: c.String("selector")}
	if err := dkim.CheckNames(k.Domain, k.Selector); err != nil {
		return usageError{err}
	}
	if t := c.String("type"); t != dkim.RSA && t != dkim.Ed25519 {
		return usagef("--type %q: want rsa or ed25519", t)
	}
	if k.File = c.String("out"); k.File == "" {
		k.File = filepath.Join(filepath.Dir(c.String("config")), "dkim", k.Domain+"."+k.Selector+".pem")
	}
	key, err := existingKey(k.File)
	if err != nil {
		return err
	}
	if key == nil {
		k.Changed = true
		if key, err = dkim.Generate(c.String("type")); err != nil {
			return fmt.Errorf("make key: %w", err)
		}
		if !c.Bool("dry-run") {
			if err := writeKey(k.File, key); err != nil {
				return err
			}
		}
	}
	if k.Record, err = dkim.NewRecord(k.Domain, k.Selector, key); err != nil {
		return err
	}
	return printKey(c, s, k)
}

func printKey(c *cli.Context, s streams, k madeKey) error {
	dry := c.Bool("dry-run")
	if dry && k.Changed {
		k.Record.Text = "" // of a key that is thrown away: nobody should publish it
	}
	if c.Bool("json") {
		return printJSON(s.out, k)
	}
	switch {
	case dry && k.Changed:
		_, err := fmt.Fprintf(s.out, "would make the key %s\n", k.File)
		return err
	case k.Changed:
		fmt.Fprintf(s.err, "key made: %s\n", k.File)
	default:
		fmt.Fprintf(s.err, "the key was there already: %s\n", k.File)
	}
	fmt.Fprintf(s.err, "publish this record, then add to the configuration and reload:\n  [[relay.dkim]]\n  domain = %q\n  selector = %q\n  key = %q\n", k.Domain, k.Selector, k.File)
	_, err := fmt.Fprintln(s.out, k.Record)
	return err
}

// existingKey reads a key, nil where there is none.
func existingKey(path string) (crypto.Signer, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := dkim.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; move it away or choose another file with --out", path, err)
	}
	return key, nil
}

// writeKey writes a key to a file that is not there yet; nobody else can read it.
func writeKey(path string, key crypto.Signer) (err error) {
	text, err := dkim.MarshalKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write key: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}
