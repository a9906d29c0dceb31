package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synward/synward/agent/names/namestest"
	"github.com/synward/synward/relay/acme"
	"github.com/synward/synward/relay/acme/acmetest"
	"github.com/synward/synward/test/stage"
)

// TestCertificateByACME: the agent binds port 80 or 443 and hands it to the relay,
// which proves its name there to an authority that the filter lets nowhere else.
func TestCertificateByACME(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{acme.HTTP01, acme.TLSALPN01} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := set(t, false)
			askAuthority(t, s, kind)
			s.StartAgent()
			must(t, s, "allow", "add", stage.ClientPrefix)
			heard(t, knock{s.Stranger, "", stage.EdgeForStranger, "465", "silence"})

			first := issued(t, s, nil)
			told(t, s, first)

			// The next relay, and that one's next agent, have what is in the spool.
			killRelay(t, s)
			if again := issued(t, s, nil); !again.Equal(first) {
				t.Errorf("the certificate of %s has been replaced by one of %s", first.NotBefore, again.NotBefore)
			}
			if !strings.Contains(s.Log(), "self_signed=false") {
				t.Error("the log says of it that it is self-signed")
			}
			_ = s.EndAgent(syscall.SIGKILL)
			s.StartAgent()

			// Where it is gone, the relay has the port still and gets another.
			if err := os.Remove(filepath.Join(s.Dir, "spool", "acme.json")); err != nil {
				t.Fatal(err)
			}
			killRelay(t, s)
			issued(t, s, first)
		})
	}
}

func killRelay(t *testing.T, s *stage.Stage) {
	t.Helper()
	was := s.RelayPID()
	if err := s.KillRelay(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another relay", func() bool { return s.Ready() && s.RelayPID() != was })
}

// issued waits until port 465 shows the client a certificate of the authority's,
// another than old (nil: any).
func issued(t *testing.T, s *stage.Stage, old *x509.Certificate) (leaf *x509.Certificate) {
	t.Helper()
	eventually(t, "a certificate of the authority's on port 465", func() bool {
		leaf = shown(t, s)
		return strings.HasPrefix(leaf.Issuer.CommonName, "Pebble") && !leaf.Equal(old)
	})
	if err := leaf.VerifyHostname("edge.example"); err != nil {
		t.Error(err)
	}
	return leaf
}

// shown is the certificate that the client meets on port 465; its chain is sound.
func shown(t *testing.T, s *stage.Stage) *x509.Certificate {
	t.Helper()
	raw, err := s.Client.Dial("", edge("465"), soon)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(soon))
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	chain := c.ConnectionState().PeerCertificates
	for i, signed := range chain[:len(chain)-1] {
		if err := signed.CheckSignatureFrom(chain[i+1]); err != nil {
			t.Errorf("certificate %d of the chain: %v", i, err)
		}
	}
	return chain[0]
}

// told wants status and doctor to say of the certificate what it says itself.
func told(t *testing.T, s *stage.Stage, leaf *x509.Certificate) {
	t.Helper()
	var st struct {
		Relay struct {
			Own struct {
				SelfSigned  bool `json:"self_signed"`
				Certificate acme.Status
			}
		}
	}
	ask(t, s, &st, "status")
	own := st.Relay.Own
	if own.SelfSigned || own.Certificate.Issuer != leaf.Issuer.CommonName || !own.Certificate.NotAfter.Equal(leaf.NotAfter) || own.Certificate.Error != "" {
		t.Errorf("status has %+v of %s, until %s", own, leaf.Issuer.CommonName, leaf.NotAfter)
	}
	says := fmt.Sprintf("by %s, until %s", leaf.Issuer.CommonName, leaf.NotAfter.Format(time.DateOnly))
	if r := s.Run("", "status"); !strings.Contains(r.Out, says) {
		t.Errorf("status does not say %q: %+v", says, r)
	}
	if r := s.Run("", "doctor"); !strings.Contains(r.Out, "for edge.example, "+says) {
		t.Errorf("doctor does not say %q: %+v", says, r)
	}
}

// askAuthority starts an authority at the stranger's, and has the edge's
// configuration name it.
func askAuthority(t *testing.T, s *stage.Stage, kind string) {
	t.Helper()
	const at = stage.StrangerAddr + ":443"
	l := s.Stranger.ListenRaw(at)
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var resolver string
	s.Stranger.Do(func() error {
		_, resolver = namestest.Serve(t, "edge.example. 60 IN A "+stage.EdgeForStranger)
		return nil
	})
	// a process: what the validator dials has to begin in the stranger's namespace
	cmd := s.Stranger.Command(context.Background(), os.Args[0], authorityCommand, resolver, s.Dir)
	cmd.Env = append(os.Environ(), acmetest.NoSleep+"=1")
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{f}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("start the authority: %v", err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the authority: %v", err)
		}
	})

	text, err := os.ReadFile(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "tls ") {
			kept = append(kept, line)
		}
	}
	kept = append(kept, fmt.Sprintf("[relay.acme]\nenabled = true\naccept_terms = true\nchallenge = %q\ndirectory = \"https://%s%s\"\nca = \"%s/ca.pem\"\n",
		kind, at, acmetest.DirectoryPath, s.Dir))
	if err := os.WriteFile(s.Config(), []byte(strings.Join(kept, "")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// authorityCommand has the tests' program be an authority, and no test.
const authorityCommand = "authority"

// serveAuthority is an authority on the descriptor 3, until its input ends. It asks
// a name server, and has its certificate in a folder.
func serveAuthority(args []string) int {
	resolver, dir := args[0], args[1]
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err == nil {
		srv := &http.Server{Handler: acmetest.Handler(80, 443, resolver, 0)}
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			_ = srv.Close()
		}()
		err = srv.ServeTLS(l, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	}
	if !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, "serve the authority:", err)
		return 1
	}
	return 0
}
