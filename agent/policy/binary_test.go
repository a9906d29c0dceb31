package policy_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/synward/synward/agent/policy"
)

func TestBinaryRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var data []byte
	var entries []policy.Entry
	for range 2000 {
		e := crowd(r)
		if r.IntN(2) == 0 {
			burst := r.Uint32()
			e.By, e.At, e.Burst = "uid 0", start.Add(time.Duration(r.Int64())%time.Hour), &burst
			e.Rate, e.Shared, e.Immune = &policy.Rate{N: 5, Period: time.Minute}, true, true
		}
		var err error
		if data, err = e.AppendBinary(data); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	for i, want := range entries {
		var got policy.Entry
		var err error
		if got, data, err = policy.DecodeBinary(data); err != nil || !got.Same(want) || got.By != want.By || !got.At.Equal(want.At) {
			t.Fatalf("entry %d: %+v, %v; want %+v", i, got, err, want)
		}
	}
	if len(data) > 0 {
		t.Errorf("%d bytes left", len(data))
	}
	if _, err := (policy.Entry{}).AppendBinary(nil); err == nil {
		t.Error("written though not valid")
	}
}

// FuzzDecodeBinary: whatever the bytes, an entry or an error, and what it was
// taken for can be written again.
func FuzzDecodeBinary(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		data, err := crowd(r).AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:r.IntN(len(data))])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, rest, err := policy.DecodeBinary(data)
		if err != nil || e.Validate(nil) != nil {
			return
		}
		again, err := e.AppendBinary(nil)
		if err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
		if got, left, err := policy.DecodeBinary(again); err != nil || !got.Same(e) || len(left) > 0 || len(rest) > len(data)-11 {
			t.Fatalf("%+v again: %+v, %v", e, got, err)
		}
	})
}
