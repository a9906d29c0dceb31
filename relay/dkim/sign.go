package dkim

import (
	"bufio"
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
)

// Key signs for one domain.
type Key struct {
	Domain, Selector string
	Private          crypto.Signer
}

// Signer signs with several keys. It does not change; it may be used by
// several goroutines.
type Signer struct{ keys map[string][]Key }

// NewSigner makes a signer. A domain may have several keys: each signs then.
func NewSigner(keys []Key) *Signer {
	s := &Signer{keys: map[string][]Key{}}
	for _, k := range keys {
		d := strings.ToLower(k.Domain)
		s.keys[d] = append(s.keys[d], k)
	}
	return s
}

// Empty says whether there is no key at all.
func (s *Signer) Empty() bool { return s == nil || len(s.keys) == 0 }

// signed are the fields that a signature covers, once more than they are there:
// so none can be added (RFC 6376 5.4.2, 8.15).
var signed = []string{
	"From", "Reply-To", "Subject", "Date", "To", "Cc", "Message-ID", "In-Reply-To", "References",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding",
	"List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Post",
}

const maxHeader = 512 << 10 // octets that are looked through

// Sign reads a message and returns the fields to put in front of it, each with
// its CRLF; none where there is no key for the domain in From.
func (s *Signer) Sign(r io.Reader) ([]byte, error) {
	if s.Empty() {
		return nil, nil
	}
	head, err := readHeader(r)
	if err != nil {
		return nil, fmt.Errorf("sign message: %w", err)
	}
	keys := s.keys[fromDomain(head)]
	if len(keys) == 0 {
		return nil, nil
	}
	signers := make([]*dkim.Signer, len(keys))
	for i, k := range keys {
		if signers[i], err = dkim.NewSigner(&dkim.SignOptions{
			Domain: k.Domain, Selector: k.Selector, Signer: k.Private, Hash: crypto.SHA256,
			HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
			HeaderKeys: headerKeys(head),
		}); err != nil {
			return nil, fmt.Errorf("sign message: %w", errors.Join(err, closeAll(signers[:i])))
		}
	}
	writers := make([]io.Writer, len(signers))
	for i, w := range signers {
		writers[i] = w
	}
	_, err = io.CopyBuffer(io.MultiWriter(writers...), io.MultiReader(bytes.NewReader(head), r), make([]byte, 32<<10))
	if err = errors.Join(err, closeAll(signers)); err != nil {
		return nil, fmt.Errorf("sign message: %w", err)
	}
	var out []byte
	for _, w := range signers {
		out = append(out, w.Signature()...)
	}
	return out, nil
}

func closeAll(list []*dkim.Signer) error {
	var errs []error
	for _, s := range list {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// readHeader reads up to and with the line that ends the header.
func readHeader(r io.Reader) ([]byte, error) {
	var head []byte
	buf := make([]byte, 4<<10)
	for len(head) < maxHeader {
		n, err := r.Read(buf)
		head = append(head, buf[:n]...)
		if bytes.Contains(head, []byte("\r\n\r\n")) || err == io.EOF {
			return head, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return head, nil
}

// fields yields the name and value of each field in head.
func fields(head []byte, yield func(name, value string)) {
	if end := bytes.Index(head, []byte("\r\n\r\n")); end >= 0 {
		head = head[:end+2]
	}
	var name, value string
	in := bufio.NewReader(bytes.NewReader(head))
	for {
		line, err := in.ReadString('\n')
		if line != "" && (line[0] == ' ' || line[0] == '\t') {
			value += line
		} else {
			if name != "" {
				yield(name, value)
			}
			n, v, _ := strings.Cut(line, ":")
			name, value = strings.ToLower(strings.TrimRight(n, " \t")), v
		}
		if err != nil {
			return
		}
	}
}

// headerKeys is what to sign of a header.
func headerKeys(head []byte) []string {
	count := map[string]int{}
	fields(head, func(name, _ string) { count[name]++ })
	var keys []string
	for _, f := range signed {
		n := count[strings.ToLower(f)]
		if strings.HasPrefix(f, "List-") && n == 0 {
			continue // mailing lists may add theirs
		}
		for range n + 1 {
			keys = append(keys, f)
		}
	}
	return keys
}

// fromDomain is the domain of the author, "" where there is not exactly one.
func fromDomain(head []byte) string {
	froms := 0
	domain := ""
	fields(head, func(name, value string) {
		if name != "from" {
			return
		}
		froms++
		list, err := mail.ParseAddressList(strings.TrimSpace(strings.ReplaceAll(value, "\r\n", "")))
		if err != nil || len(list) != 1 {
			return
		}
		addr := list[0].Address
		domain = strings.ToLower(addr[strings.LastIndexByte(addr, '@')+1:])
	})
	if froms != 1 {
		return ""
	}
	return domain
}
