package loader

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Tail is what the kernel has counted of a source since its last event: it
// tells of it with the source's next packet, which may never come.
type Tail struct {
	Place    int    // in the kernel's table, where one source at a time has room
	Sent     uint64 // the kernel's mark of the source's last event; the same = no other has been sent
	Source   netip.Addr
	Port     uint16
	Reason   Reason
	Observed bool
	Count    uint32 // attempts that no event stands for yet
}

// Tails lists what no event stands for yet. It moves nothing: the next event of
// a source counts its tail once more.
func (f *Filter) Tails() ([]Tail, error) {
	var place uint32
	var cpus []filterRecent
	var out []Tail
	it := f.maps.Recent.Iterate()
	for it.Next(&place, &cpus) {
		for cpu, r := range cpus {
			if r.Count == 0 {
				continue
			}
			var a [16]byte
			for i, w := range r.Source {
				binary.NativeEndian.PutUint32(a[i*4:], w)
			}
			out = append(out, Tail{
				Place: int(place)*len(cpus) + cpu, Sent: r.Sent, Source: netip.AddrFrom16(a).Unmap(), Port: hostToNet(r.Port),
				Reason: Reason(r.Reason), Observed: r.Observed != 0, Count: r.Count,
			})
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read what was refused last: %w", err)
	}
	return out, nil
}
