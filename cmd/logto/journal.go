package logto

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"time"

	slogjournal "github.com/systemd/slog-journal"
)

// journal sends records to systemd's journal: each key as a field of its own
// (SYNWARD_SOURCE, …), and all of them in the message too, for without that
// journalctl shows people the bare words.
type journal struct {
	fields slog.Handler // the journal's
	level  slog.Level
	with   []slog.Attr
}

func newJournal(level slog.Level) (slog.Handler, error) {
	fields, err := slogjournal.NewHandler(&slogjournal.Options{
		Level:        level,
		ReplaceGroup: fieldName,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			a = plainValues(groups, a)
			a.Key = fieldName(a.Key)
			return a
		},
	})
	if err != nil {
		return nil, err
	}
	return journal{fields: fields, level: level}, nil
}

// fieldName is a key as the journal takes it, out of the way of its own fields.
func fieldName(key string) string {
	return "SYNWARD_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
}

func (j journal) Enabled(_ context.Context, l slog.Level) bool { return l >= j.level }

func (j journal) Handle(ctx context.Context, r slog.Record) error {
	words, err := j.words(r)
	if err != nil {
		return err
	}
	out := r.Clone()
	out.Message, out.PC = words, 0 // where in our code a line was written is of no use to anybody
	return j.fields.Handle(ctx, out)
}

// words are the message and its keys, as the text form has them.
func (j journal) words(r slog.Record) (string, error) {
	var text bytes.Buffer
	h := slog.NewTextHandler(&text, &slog.HandlerOptions{Level: j.level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return a
	}}).WithAttrs(j.with)
	bare := r.Clone() // a handler leaves out a time that is zero
	bare.Time, bare.Message = time.Time{}, ""
	if err := h.Handle(context.Background(), bare); err != nil {
		return "", err
	}
	return strings.TrimSpace(r.Message + " " + strings.TrimSpace(text.String())), nil
}

func (j journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	j.fields = j.fields.WithAttrs(attrs)
	j.with = append(j.with[:len(j.with):len(j.with)], attrs...)
	return j
}

// WithGroup implements slog.Handler. Nothing here groups: the keys stay flat.
func (j journal) WithGroup(string) slog.Handler { return j }
