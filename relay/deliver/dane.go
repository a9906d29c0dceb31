package deliver

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// tlsa is one TLSA record (RFC 6698 2.1).
type tlsa struct {
	usage, selector, matching uint8
	data                      []byte
}

type tlsaSet []tlsa

// Usages that SMTP knows (RFC 7672 3.1); the others count as unusable.
const (
	usageTA = 2
	usageEE = 3
)

// UsableTLSA says whether a record's parameters are ones that a Hop in mode
// DANE can be verified by (RFC 7672 3.1).
func UsableTLSA(usage, selector, matching uint8) bool {
	return (usage == usageTA || usage == usageEE) && selector <= 1 && matching <= 2
}

// parseTLSA reads Hop.TLSA.
func parseTLSA(s string) (tlsaSet, error) {
	var set tlsaSet
	for line := range strings.Lines(s) {
		var r tlsa
		var data string
		if _, err := fmt.Sscan(line, &r.usage, &r.selector, &r.matching, &data); err != nil {
			return nil, fmt.Errorf("tlsa record %.80q: want usage, selector, matching type and data", line)
		}
		var err error
		if r.data, err = hex.DecodeString(data); err != nil || !UsableTLSA(r.usage, r.selector, r.matching) {
			return nil, fmt.Errorf("tlsa record %.80q: not usable", line)
		}
		set = append(set, r)
	}
	if len(set) == 0 {
		return nil, errors.New("tlsa: no record")
	}
	return set, nil
}

// verify checks a chain, the server's own certificate first. With DANE-EE the
// record alone counts, not the names in it nor its dates (RFC 7672 3.1.1);
// with DANE-TA the chain must lead to the record's and the name be host's.
func (set tlsaSet) verify(chain []*x509.Certificate, host string) error {
	if len(chain) == 0 {
		return errors.New("the server showed no certificate")
	}
	for _, r := range set {
		if r.usage == usageEE && r.matches(chain[0]) {
			return nil
		}
		if r.usage != usageTA {
			continue
		}
		at := slices.IndexFunc(chain, r.matches)
		if at < 0 {
			continue
		}
		o := x509.VerifyOptions{DNSName: host, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
		o.Roots.AddCert(chain[at])
		for _, c := range chain {
			o.Intermediates.AddCert(c)
		}
		if _, err := chain[0].Verify(o); err == nil {
			return nil
		}
	}
	return errors.New("no TLSA record of the server's matches its certificate")
}

func (r tlsa) matches(c *x509.Certificate) bool {
	what := c.Raw
	if r.selector == 1 {
		what = c.RawSubjectPublicKeyInfo
	}
	switch r.matching {
	case 1:
		sum := sha256.Sum256(what)
		what = sum[:]
	case 2:
		sum := sha512.Sum512(what)
		what = sum[:]
	}
	return bytes.Equal(what, r.data)
}
