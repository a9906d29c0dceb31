package logto

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestFormsAndLevels(t *testing.T) {
	var out bytes.Buffer
	log, err := Config{Format: JSON, Level: "warn"}.Open(&out)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("not shown")
	log.With("component", "relay").Warn("shown", "took", 1500*time.Millisecond)
	var line struct{ Msg, Component, Took string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Msg != "shown" || line.Component != "relay" || line.Took != "1.5s" {
		t.Errorf("%v: %s", err, out.String())
	}
	out.Reset()
	if log, err = (Config{Format: Text, Level: "debug"}).Open(&out); err != nil {
		t.Fatal(err)
	}
	log.Debug("shown")
	if !strings.Contains(out.String(), "level=DEBUG msg=shown") {
		t.Errorf("%s", out.String())
	}
	for name, c := range map[string]Config{"bad format": {Format: "xml", Level: "info"}, "bad level": {Format: Text, Level: "loud"}} {
		if _, err := c.Open(&out); err == nil {
			t.Errorf("%s passed", name)
		}
	}
}

func TestTheRelayIsToldTheSame(t *testing.T) {
	c := Config{Format: Journal, Level: "debug"}
	value, ok := strings.CutPrefix(c.Environ(), Env+"=")
	if got, err := FromEnv(value); !ok || err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := FromEnv(""); err != nil || got != Default() {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := FromEnv("text,loud"); err == nil {
		t.Error("a bad level passed")
	}
}

// In the journal people read the message alone: it has the keys in it, and
// each is a field too.
func TestJournalMessagesHaveTheKeys(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(journal{fields: slog.NewJSONHandler(&out, nil), level: slog.LevelInfo}).With("component", "filter").With("port", 25)
	log.Info("attempts dropped", "source", "192.0.2.1", "note", "two words")
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if want := `attempts dropped component=filter port=25 source=192.0.2.1 note="two words"`; line["msg"] != want {
		t.Errorf("message %q, want %q", line["msg"], want)
	}
	if line["source"] != "192.0.2.1" || line["port"] != 25.0 {
		t.Errorf("fields %v", line)
	}
	if got := fieldName("next_hop"); got != "SYNWARD_NEXT_HOP" {
		t.Errorf("field %s", got)
	}
}
