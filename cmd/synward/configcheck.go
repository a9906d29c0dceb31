package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func configCommand(s streams) *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "the configuration file",
		Subcommands: []*cli.Command{{
			Name:  "check",
			Usage: "validate the file, and whether what it names can be read",
			Flags: []cli.Flag{jsonFlag()},
			Action: func(c *cli.Context) error {
				if err := argCount(c, 0, 0); err != nil {
					return err
				}
				path := c.String("config")
				f, err := loadFile(path)
				if err == nil && f.Relay.Enabled {
					_, err = f.Relay.Settings(nil)
				}
				if !c.Bool("json") {
					if err == nil {
						fmt.Fprintf(s.out, "%s: good\n", path)
					}
					return err
				}
				ans := map[string]any{"file": path, "ok": err == nil}
				if err != nil {
					ans["error"] = oneLine(err)
				}
				if perr := printJSON(s.out, ans); perr != nil {
					return perr
				}
				return err
			},
		}},
	}
}
