package relay

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// wire is a source that hands out data in pieces of n bytes.
type wire struct {
	data []byte
	n    int
}

func (w *wire) read(b []byte, _ time.Time) (int, error) {
	if len(w.data) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(b[:min(len(b), w.n)], w.data)
	w.data = w.data[n:]
	return n, nil
}

// model is what body should make of a message: slow and plain.
func model(s string, limit int) (msg, rest string, err error) {
	msg, rest, found := strings.Cut("\r\n"+s, "\r\n.\r\n")
	if !found {
		return "", "", errCut
	}
	msg = strings.ReplaceAll(msg+"\r\n", "\r\n.", "\r\n")[2:]
	bare := strings.ReplaceAll(msg, "\r\n", "")
	switch {
	case strings.ContainsAny(bare, "\r\n\x00"):
		return "", rest, errContent
	case len(msg) > limit:
		return "", rest, errTooBig
	}
	return msg, rest, nil
}

// checkBody compares body and model on s, fed in pieces of n, head of it first.
func checkBody(t *testing.T, s string, n, head, limit int) {
	t.Helper()
	w := &wire{data: []byte(s[head:]), n: n}
	b := newBody(w, []byte(s[:head]), make([]byte, 16+n), int64(limit), time.Minute)
	got, err := io.ReadAll(iotest.OneByteReader(b))
	if n > 4 {
		w = &wire{data: []byte(s[head:]), n: n}
		b = newBody(w, []byte(s[:head]), make([]byte, 16+n), int64(limit), time.Minute)
		got, err = io.ReadAll(b)
	}
	want, rest, wantErr := model(s, limit)
	if wantErr != nil && err == nil {
		t.Fatalf("%q in %d: took %q, want %v", s, n, got, wantErr)
	}
	// Which fault is met first depends on the pieces: any of them will do.
	if wantErr == nil && (err != nil || string(got) != want) {
		t.Fatalf("%q in %d: %q, %v; want %q", s, n, got, err, want)
	}
	if errors.Is(wantErr, errCut) || err != nil && errors.Is(err, errCut) {
		return
	}
	if err != nil && b.drain(time.Minute) != nil {
		return // longer than may be drained
	}
	if left := string(b.rest()) + string(w.data); left != rest {
		t.Fatalf("%q in %d: leaves %q, want %q", s, n, left, rest)
	}
}

func TestBodyAgainstModel(t *testing.T) {
	parts := []string{"\r\n", "\r\n", "\r\n.", ".", "\r", "\n", "a", "text", "\r\n.\r\n", "\x00", "\r\n..", "é"}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		var s strings.Builder
		for range rng.IntN(12) {
			s.WriteString(parts[rng.IntN(len(parts))])
		}
		if rng.IntN(4) > 0 {
			s.WriteString("\r\n.\r\nNEXT\r\n")
		}
		checkBody(t, s.String(), 1+rng.IntN(9), rng.IntN(s.Len()+1), 5+rng.IntN(40))
	}
}

func FuzzBody(f *testing.F) {
	f.Add("a\r\n..b\r\n.\r\nNOOP\r\n", 3)
	f.Add("a\n.\r\n\r\n.\r\n", 1)
	f.Fuzz(func(t *testing.T, s string, n int) {
		checkBody(t, s, 1+max(n, -n)&15, 0, 64)
	})
}

func TestBodyTooLongToDrain(t *testing.T) {
	w := &wire{data: bytes.Repeat([]byte("0123456789\r\n"), 1000), n: 100}
	b := newBody(w, nil, make([]byte, 200), 100, time.Minute)
	if _, err := io.ReadAll(b); !errors.Is(err, errTooBig) {
		t.Fatal(err)
	}
	if err := b.drain(time.Minute); !errors.Is(err, errCut) || len(w.data) == 0 {
		t.Errorf("drain: %v, %d bytes not read", err, len(w.data))
	}
}

func BenchmarkBody(b *testing.B) {
	msg := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 640) + ".\r\n"
	buf, out := make([]byte, bufferSize), make([]byte, 64<<10)
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		r := newBody(&wire{data: []byte(msg), n: bufferSize}, nil, buf, 1<<20, time.Minute)
		for {
			if _, err := r.Read(out); err != nil {
				break
			}
		}
	}
}
