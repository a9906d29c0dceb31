package relay

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/synward/synward/relay/account"
	"github.com/synward/synward/relay/queue"
	"golang.org/x/crypto/argon2"
)

// memQueue is a Queue in memory.
type memQueue struct {
	mu    sync.Mutex
	items []memItem
	fail  error
}

type memItem struct {
	env  queue.Envelope
	body string
}

func (q *memQueue) Add(_ context.Context, e queue.Envelope, body io.Reader) (string, error) {
	b, err := io.ReadAll(body)
	if err != nil {
		return "", fmt.Errorf("read message: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fail != nil {
		return "", q.fail
	}
	q.items = append(q.items, memItem{e, string(b)})
	return fmt.Sprintf("item%d", len(q.items)), nil
}

func (q *memQueue) all() []memItem {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]memItem(nil), q.items...)
}

// cheapHash is a valid hash that takes no time to check.
func cheapHash(password string) string {
	salt := []byte("0123456789abcdef")
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=19$m=8,t=1,p=1$%s$%s", b64.EncodeToString(salt),
		b64.EncodeToString(argon2.IDKey([]byte(password), salt, 1, 8, 1, 32)))
}

func testSettings() Settings {
	return Settings{
		Hostname: "relay.example",
		Accounts: []account.Account{
			{Name: "alice", Hash: cheapHash("secret")},
			{Name: "bob", Hash: cheapHash("hunter2"), Senders: []string{"bob@example.org", "example.net"}},
			{Name: "gone", Hash: cheapHash("secret"), Disabled: true},
		},
		Limits: Limits{MaxSize: 20000, MaxRecipients: 100, AuthDelay: Duration(time.Millisecond), Command: Duration(20 * time.Second)},
	}
}

// bench is a running server with one listener of each kind.
type bench struct {
	*Server
	queue *memQueue
	addr  map[string]string // "587", "465", "25" → address
	stop  func()

	counts Quotas
}

// start runs a server on loopback until the test ends.
func start(t *testing.T, set Settings) *bench { t.Helper(); return startWith(t, set, nil) }

// startWith is start with something that counts.
func startWith(t *testing.T, set Settings, counts Quotas) *bench {
	t.Helper()
	b := &bench{queue: &memQueue{}, addr: map[string]string{}, counts: counts}
	var ls []Listener
	for port, mode := range map[uint16]string{587: TLSStartTLS, 465: TLSImplicit, 25: TLSStartTLS} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ls = append(ls, Listener{Net: l, Port: port, TLS: mode})
		b.addr[fmt.Sprint(port)] = l.Addr().String()
	}
	b.run(t, ls)
	if err := b.Apply(set); err != nil {
		t.Fatal(err)
	}
	return b
}

// run runs the server on ls, without settings yet.
func (b *bench) run(t *testing.T, ls []Listener) {
	b.Server = New(Options{Listeners: ls, Queue: b.queue, Events: NewEvents(time.Now), Log: slog.New(slog.DiscardHandler), DrainTime: 5 * time.Second, Quotas: b.counts})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(b.stop)
}

// eventually polls until ok or fails the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

var insecureTLS = &tls.Config{InsecureSkipVerify: true}

func withPeer(set Settings) Settings {
	set.Peers = []Peer{{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Name: "printer"}}
	return set
}

var (
	errDisk = errors.New("pwrite /var/spool/synward/0001.seg: input/output error")
	errFull = queue.ErrFull
)
