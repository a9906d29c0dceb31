package main

import (
	"net"
	"strings"
	"testing"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/agent/names/namestest"
)

// The servers that are asked are those by which something is looked up, and one
// that gives no answer is told apart from one that does.
func TestDoctorOnResolvers(t *testing.T) {
	_, good := namestest.Serve(t, ". 60 IN NS a.example.")
	_, knowing := namestest.Serve(t, "") // NXDOMAIN for the root: no resolver
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := gone.LocalAddr().String()
	gone.Close()
	for name, c := range map[string]struct {
		relay     bool
		mx, names []string
		derived   bool
		conf      string
		want      []string // grade and words of each finding
	}{
		"nothing is looked up":   {conf: "nameserver 127.0.0.1"},
		"the relay's":            {relay: true, mx: []string{good}, names: []string{good}, want: []string{"ok " + good}},
		"bad relay's":            {relay: true, mx: []string{dead}, names: []string{good}, want: []string{"warn " + dead, "ok " + good}},
		"bad answer":             {relay: true, mx: []string{knowing}, names: []string{knowing}, want: []string{"warn NXDOMAIN"}},
		"the names'":             {names: []string{good}, want: []string{"ok " + good}},
		"bad none":               {derived: true, conf: "# none", want: []string{"warn no name server"}},
		"the host's do not read": {relay: true, conf: "nameserver not-an-address\noptions ", want: []string{"warn no name server"}},
		"bad none of the relay":  {relay: true, conf: "# none", want: []string{"warn no name server"}},
	} {
		p := fakeRoot(t, map[string]string{"etc/resolv.conf": c.conf})
		p.file.Relay.Enabled, p.file.Relay.MX.Resolver, p.file.Names.Resolver = c.relay, c.mx, c.names
		if c.derived {
			p.status = &control.Status{Derived: []control.Derived{{Kind: control.KindHost, Name: "office.example"}}}
		}
		got := examineResolvers(t.Context(), p)
		if len(got) != len(c.want) {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		for _, want := range c.want {
			grade, words, _ := strings.Cut(want, " ")
			found := false
			for _, f := range got {
				found = found || f.Grade == grade && strings.Contains(f.Text, words) && (f.Grade == gradeOK) == (f.Mend == "")
			}
			if !found {
				t.Errorf("%s: no finding %q in %+v", name, want, got)
			}
		}
	}
}
