package loader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Event is one record of the kernel's ring buffer: attempts of one source that
// were refused, or would have been on a port that only observes.
type Event struct {
	Time       time.Time  `json:"time"`
	Source     netip.Addr `json:"source"` // unspecified where the headers hid it
	Port       uint16     `json:"port"`   // 0 = not in sight
	Reason     Reason     `json:"reason"`
	Observed   bool       `json:"observed,omitempty"` // it was let pass
	EntryID    uint64     `json:"entry_id,omitempty"`
	Ifindex    int        `json:"ifindex"`
	Count      uint32     `json:"count"`                // attempts that this record stands for
	Suppressed uint32     `json:"suppressed,omitempty"` // records before it that the kernel's rate limit held back
}

// Events calls fn for every event until the context ends (nil) or reading
// fails. Only one reader at a time gets every event.
func (f *Filter) Events(ctx context.Context, fn func(Event)) error {
	r, err := ringbuf.NewReader(f.maps.Events)
	if err != nil {
		return fmt.Errorf("open the events: %w", err)
	}
	defer r.Close()
	stop := context.AfterFunc(ctx, func() { r.Close() }) // a deadline would wait for the read under way
	defer stop()
	var rec ringbuf.Record
	for {
		err := r.ReadInto(&rec)
		if errors.Is(err, ringbuf.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read an event: %w", err)
		}
		if e, err := decodeEvent(rec.RawSample); err == nil {
			fn(e)
		}
	}
}

func decodeEvent(raw []byte) (Event, error) {
	var k filterEvent
	if err := binary.Read(bytes.NewReader(raw), binary.NativeEndian, &k); err != nil {
		return Event{}, fmt.Errorf("decode an event: %w", err)
	}
	var a [16]byte
	for i, w := range k.Source {
		binary.NativeEndian.PutUint32(a[i*4:], w)
	}
	return Event{
		Time:       bootTime(k.Time),
		Source:     netip.AddrFrom16(a).Unmap(),
		Port:       hostToNet(k.Port),
		Reason:     Reason(k.Reason),
		Observed:   k.Observed != 0,
		EntryID:    k.Entry,
		Ifindex:    int(k.Ifindex),
		Count:      k.Count,
		Suppressed: k.Suppressed,
	}, nil
}

// bootTime is a CLOCK_BOOTTIME stamp on the wall clock.
func bootTime(ns uint64) time.Time {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return time.Now()
	}
	return time.Now().Add(time.Duration(int64(ns) - ts.Nano()))
}

// Suppressed is how many event records the kernel's rate limit has held back
// since the filter was loaded.
func (f *Filter) Suppressed() (uint64, error) {
	var cpus []filterBudget
	if err := f.maps.Budget.Lookup(uint32(0), &cpus); err != nil {
		return 0, fmt.Errorf("read the events' budget: %w", err)
	}
	var sum uint64
	for _, b := range cpus {
		sum += b.Total
	}
	return sum, nil
}
