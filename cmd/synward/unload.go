package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/agent/unixsock"
	"github.com/synward/synward/loader"
)

func unloadCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:  "unload",
		Usage: "detach the filter and remove every pin: from then on every source passes",
		Flags: []cli.Flag{dryRunFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := argCount(c, 0, 0); err != nil {
				return err
			}
			p, err := places(c)
			if err != nil {
				return err
			}
			if unixsock.Alive(p.Control.Socket) {
				return fmt.Errorf("unload: an agent runs at %s and would attach the filter again; stop it first: systemctl stop synward", p.Control.Socket)
			}
			done, err := unload(p.Filter.PinDir, c.Bool("dry-run"))
			if err != nil {
				return err
			}
			switch {
			case c.Bool("json"):
				return printJSON(s.out, map[string]any{"unloaded": done, "dry_run": c.Bool("dry-run"), "pin_dir": p.Filter.PinDir})
			case !done:
				fmt.Fprintf(s.out, "no filter is loaded in %s\n", p.Filter.PinDir)
			case c.Bool("dry-run"):
				fmt.Fprintf(s.out, "dry run: the filter in %s would be unloaded\n", p.Filter.PinDir)
			default:
				fmt.Fprintf(s.out, "unloaded the filter in %s: every source passes\n", p.Filter.PinDir)
			}
			return nil
		},
	}
}

// unload says whether there was, or with dryRun is, something to unload.
func unload(pins string, dryRun bool) (bool, error) {
	if dryRun {
		f, err := loader.View(pins)
		if errors.Is(err, loader.ErrNotLoaded) {
			return false, nil
		}
		if err == nil {
			f.Close()
		}
		return true, nil // pins of another version can be unloaded too
	}
	return loader.Unload(pins)
}
