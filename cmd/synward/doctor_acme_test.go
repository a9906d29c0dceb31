package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/synward/synward/agent/control"
	"github.com/synward/synward/relay"
	"github.com/synward/synward/relay/acme"
)

// A certificate that the relay gets for itself is judged by what the relay says.
func TestDoctorOnACME(t *testing.T) {
	now := time.Now()
	conf := relay.Config{Hostname: "mail.example.net", ACME: relay.ACMEConfig{Enabled: true}}
	long, short := now.Add(60*24*time.Hour), now.Add(24*time.Hour)
	for name, c := range map[string]struct {
		st   *acme.Status
		want string
	}{
		"not running":       {nil, gradeWarn},
		"asked for":         {&acme.Status{}, gradeWarn},
		"good":              {&acme.Status{Issuer: "R1", NotAfter: long}, gradeOK},
		"none":              {&acme.Status{Error: "refused", Next: now}, gradeFail},
		"not renewed":       {&acme.Status{Error: "refused", NotAfter: long, Next: now}, gradeWarn},
		"not renewed, ends": {&acme.Status{Error: "refused", NotAfter: short, Next: now}, gradeFail},
	} {
		var st *control.RelayStatus
		if c.st != nil {
			own, err := json.Marshal(map[string]any{"certificate": c.st})
			if err != nil {
				t.Fatal(err)
			}
			st = &control.RelayStatus{Running: true, Own: own}
		}
		got := acmeCertificate(conf, st, now)
		if got.Grade != c.want || got.Grade != gradeOK && got.Mend == "" {
			t.Errorf("%s: %+v", name, got)
		}
		if c.st == nil {
			continue
		}
		if c.st.Error != "" && !strings.Contains(got.Text, c.st.Error) {
			t.Errorf("%s: the cause is not told: %+v", name, got)
		}
	}
}
