package deliver

import (
	"strings"
	"testing"
	"time"
)

// BenchmarkDeliver sends messages of 4 KiB from a full queue to a next hop on
// this machine, under TLS. The sink takes part of the CPU.
func BenchmarkDeliver(b *testing.B) {
	s := newSink(b, nil)
	r := newRig(b, Settings{Item: Backoff{time.Hour, time.Hour}}, nil) // no next hop yet
	body := strings.Repeat("0123456789 0123456789 0123456789 0123456789 0123456789 012345\r\n", 64)
	for range b.N {
		r.add("alice@example.net", body, "b@example.org")
	}
	for r.q.Stats().Deferred < b.N {
		time.Sleep(time.Millisecond)
	}
	r.e.Configure(Settings{Router: SmartHosts{s.hop(Required)}})
	b.ResetTimer()
	for _, it := range r.q.List() {
		if err := r.q.Retry(it.ID); err != nil {
			b.Fatal(err)
		}
	}
	for r.q.Stats().Items > 0 {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	if n := len(s.mails()); n != b.N {
		b.Fatalf("%d of %d arrived", n, b.N)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
