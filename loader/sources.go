package loader

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/synward/synward/loader/rule"
)

// Source is what one source has open, or all sources of an entry whose caps are
// shared.
type Source struct {
	EntryID  uint64       `json:"entry_id,omitempty"` // 0 = the port's default lets it pass
	Prefix   netip.Prefix `json:"prefix,omitzero"`    // an IPv4 address, an IPv6 prefix; none = the entry's whole prefix
	Open     uint64       `json:"open"`
	Peak     uint64       `json:"peak"`     // most at once, since it was last forgotten
	Admitted uint64       `json:"admitted"` // connections in all
	Refused  uint64       `json:"refused"`  // beyond the cap
}

// Sources lists the sources that have or lately had connections.
func (f *Filter) Sources() ([]Source, error) {
	_, cfg, err := f.inForce()
	if err != nil {
		return nil, err
	}
	var key filterSource
	var use filterUsage
	var out []Source
	it := f.maps.Usages.Iterate()
	for it.Next(&key, &use) {
		s := Source{EntryID: key.Entry, Open: use.Open &^ usageIdle, Peak: use.Peak, Admitted: use.Admitted, Refused: use.Refused}
		if key.Entry < rule.FirstID {
			s.EntryID = 0
		}
		s.Prefix = sourcePrefix(key.Addr, int(cfg.Ipv6Prefix))
		out = append(out, s)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read the sources: %w", err)
	}
	return out, nil
}

// usageIdle is USAGE_IDLE of bpf/abi.h.
const usageIdle = 1 << 63

func sourcePrefix(words [4]uint32, bits int) netip.Prefix {
	var a [16]byte
	for i, w := range words {
		binary.NativeEndian.PutUint32(a[i*4:], w)
	}
	addr := netip.AddrFrom16(a)
	if addr.IsUnspecified() {
		return netip.Prefix{}
	}
	if addr.Is4In6() {
		bits = 32
	}
	return netip.PrefixFrom(addr.Unmap(), bits)
}
