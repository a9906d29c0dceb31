package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/synward/synward/relay/account"
)

// limitFlags are what an account may do, for user add and user set.
func limitFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "senders", Usage: "the `ADDRESSES` or domains that the user may send as, separated by commas (default: any)"},
		&cli.StringFlag{Name: "to", Usage: "the `DOMAINS` that the user may send to; .example.org is all below it (default: any)"},
		&cli.StringFlag{Name: "not-to", Usage: "the `DOMAINS` that the user may not send to"},
		&cli.StringFlag{Name: "max-size", Usage: "`BYTES` of a message, such as 500k or 10M; 0 = the relay's limit"},
		&cli.StringFlag{Name: "max-recipients", Usage: "`N` of a message; 0 = the relay's limit"},
	}
}

// setLimits puts the flags that are given into an account. An empty list takes
// the restriction away.
func setLimits(c *cli.Context, a *account.Account) error {
	for name, list := range map[string]*[]string{"senders": &a.Senders, "to": &a.Domains, "not-to": &a.Denied} {
		if c.IsSet(name) {
			*list = nil
			if v := c.String(name); v != "" {
				*list = strings.Split(v, ",")
			}
		}
	}
	for _, s := range a.Senders {
		if err := account.ValidateSender(s); err != nil {
			return usageError{err}
		}
	}
	for _, d := range slices.Concat(a.Domains, a.Denied) {
		if err := account.ValidateDomain(d); err != nil {
			return usageError{err}
		}
	}
	if c.IsSet("max-size") {
		n, err := parseSize(c.String("max-size"))
		if err != nil || n != 0 && n < 1024 {
			return usagef("--max-size: %q is not a number of bytes such as 500k or 10M (at least 1024, or 0)", c.String("max-size"))
		}
		a.MaxSize = n
	}
	if c.IsSet("max-recipients") {
		n, err := strconv.Atoi(c.String("max-recipients"))
		if err != nil || n < 0 {
			return usagef("--max-recipients: %q is not a number", c.String("max-recipients"))
		}
		a.MaxRecipients = n
	}
	return nil
}

// parseSize reads bytes: 1024, 500k, 10M, 1G.
func parseSize(s string) (int64, error) {
	shift := 0
	if n := len(s); n > 0 {
		if i := strings.IndexByte("kmg", s[n-1]|0x20); i >= 0 {
			s, shift = s[:n-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		return 0, errors.New("not a size")
	}
	return n << shift, nil
}

func userSet(c *cli.Context, s streams) error {
	given := false
	for _, f := range limitFlags() {
		given = given || c.IsSet(f.Names()[0])
	}
	if !given {
		return usagef("user set: say what: %s --help lists it", c.Command.HelpName)
	}
	return changeUser(c, s, "changed", func(a *account.Account) (bool, error) {
		before := fmt.Sprint(*a)
		err := setLimits(c, a)
		return fmt.Sprint(*a) != before, err
	})
}

// limitsText is what an account may not do, for people.
func limitsText(a account.Account) string {
	var parts []string
	if len(a.Domains) > 0 {
		parts = append(parts, "to "+strings.Join(a.Domains, ","))
	}
	if len(a.Denied) > 0 {
		parts = append(parts, "not to "+strings.Join(a.Denied, ","))
	}
	if a.MaxSize > 0 {
		parts = append(parts, fmt.Sprintf("%d bytes", a.MaxSize))
	}
	if a.MaxRecipients > 0 {
		parts = append(parts, plural(a.MaxRecipients, "recipient", "recipients"))
	}
	return dash(strings.Join(parts, "; "))
}
