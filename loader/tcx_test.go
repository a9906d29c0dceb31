package loader_test

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synward/synward/loader"
	"github.com/synward/synward/loader/rule"
	"github.com/synward/synward/test/lab"
)

// attachTCX puts the filter into TCX ingress of eth0. On a kernel before 6.6 it
// wants a refusal in words instead; then there is nothing more to test.
func (e *edge) attachTCX(t *testing.T) (there bool) {
	t.Helper()
	var a loader.Attachment
	err := e.Try(func() (err error) { a, err = e.filter.Attach("eth0", loader.TCX); return err })
	if before66(t) {
		wantError(t, err, loader.ErrUnsupported, "eth0", "Linux 6.6", "[filter] attach")
		return false
	}
	if err != nil || a.Mode != loader.TCX {
		t.Fatalf("attached as %+v, %v", a, err)
	}
	return true
}

func before66(t *testing.T) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	parts := strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3)
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return major < 6 || major == 6 && minor < 6
}

// foreignEdge has somebody else's XDP program on eth0, and the filter behind it.
func foreignEdge(t *testing.T, limits rule.Limits) (e *edge, there bool) {
	t.Helper()
	e = newEdge(t, limits)
	e.Do(func() error { return e.filter.Detach("eth0") })
	occupy(t, e.Host, "eth0")
	return e, e.attachTCX(t)
}

// strangersMeetSilence tries both families.
func (e *edge) guards(t *testing.T, when string) {
	t.Helper()
	for to, net := range map[string]string{"192.0.2.1:25": "192.0.2.", "[2001:db8::1]:25": "2001:db8::"} {
		if !reached(t, e.peer, net+"2", to) {
			t.Errorf("%s: %s2 is allowed, and was refused", when, net)
		}
		if reached(t, e.peer, net+"3", to) {
			t.Errorf("%s: the stranger %s3 came through", when, net)
		}
	}
}

// Beside somebody else's XDP program the filter does its work, outlives its
// agent, and goes when it is unloaded.
func TestTCXBesideAForeignProgram(t *testing.T) {
	t.Parallel()
	e, there := foreignEdge(t, rule.Limits{})
	if !there {
		return
	}
	e.Listen("[::]:25")
	e.guards(t, "attached")
	e.filter.Close()
	e.guards(t, "with nobody there")
	e.reopen(t)
	e.attachTCX(t)
	e.Do(func() error {
		at, err := e.filter.Attachments()
		if len(at) != 1 || at[0].Interface != "eth0" || at[0].Mode != loader.TCX {
			t.Errorf("attachments %+v", at)
		}
		return err
	})
	e.guards(t, "re-opened")
	dir := e.filter.Dir()
	e.filter.Close()
	if _, err := loader.Unload(dir); err != nil {
		t.Fatal(err)
	}
	if !reached(t, e.peer, "192.0.2.3", "192.0.2.1:25") {
		t.Error("the stranger is refused after the unload")
	}
}

// From XDP to TCX and back no stranger comes through.
func TestTCXAndXDPTakeTurns(t *testing.T) {
	t.Parallel()
	e := newEdge(t, rule.Limits{})
	e.Listen("[::]:25")
	ctx, stop := context.WithCancel(t.Context())
	through := knockFrom(ctx, e.peer, "192.0.2.3")
	for range 20 {
		if !e.attachTCX(t) {
			break
		}
		e.Do(func() error {
			a, err := e.filter.Attach("eth0", loader.Auto)
			if a.Mode != loader.Native {
				t.Errorf("attached as %+v", a)
			}
			return err
		})
	}
	stop()
	if n := <-through; n > 0 {
		t.Errorf("%d strangers came through", n)
	}
	e.guards(t, "after all")
}

func knockFrom(ctx context.Context, peer *lab.Host, src string) <-chan int {
	n := make(chan int, 1)
	go func() {
		through := 0
		for ctx.Err() == nil {
			if c, err := peer.Dial(src, "192.0.2.1:25", 2*time.Millisecond); err == nil {
				c.Close()
				through++
			}
		}
		n <- through
	}()
	return n
}

// The place that somebody else took meanwhile is not taken from him, and the
// filter stays where it is.
func TestTCXStaysWhereXDPIsTaken(t *testing.T) {
	t.Parallel()
	e, there := foreignEdge(t, rule.Limits{})
	if !there {
		return
	}
	e.Listen("[::]:25")
	e.Do(func() error {
		_, err := e.filter.Attach("eth0", loader.Auto)
		wantError(t, err, loader.ErrForeign, "squatter", `"tcx"`)
		return nil
	})
	e.guards(t, "after the refusal")
}

// Caps are exact by TCX too, and who is one too many hears a RST.
func TestTCXConnectionCapIsExact(t *testing.T) {
	t.Parallel()
	const limit = 50
	for name, cookies := range map[string]string{"no cookies": "0", "always cookies": "2"} {
		t.Run(name, func(t *testing.T) {
			e, there := foreignEdge(t, rule.Limits{Conns: limit})
			if !there {
				return
			}
			setCookies(t, e.Host, cookies)
			s := serve(e.Host, t, "192.0.2.1:25")
			alive := e.burst(t, "192.0.2.2", *burst)
			open, peak := e.open(t, "192.0.2.2")
			if len(alive) != limit || open != limit || peak != limit || e.sockets(t, "192.0.2.2") != limit {
				t.Errorf("alive %d, open %d, peak %d, sockets %d; want %d each", len(alive), open, peak, e.sockets(t, "192.0.2.2"), limit)
			}
			closeAll(alive)
			s.closeAll()
			e.eventually(t, "192.0.2.2", 0)
		})
	}
}

// So they are where the server is behind the edge: both directions are then
// watched at TCX, and so is the RST that the filter sends itself.
func TestTCXForwardedCapIsExact(t *testing.T) {
	t.Parallel()
	const limit = 50
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			e := newForward(t, way, rule.Limits{Conns: limit}, 0)
			if !e.attachTCX(t) {
				return
			}
			s := serve(e.behind, t, e.to()+":25")
			stop := e.highest(t, "192.0.2.2")
			alive := e.burst(t, "192.0.2.2", *burst)
			most := stop()
			open, peak := e.open(t, "192.0.2.2")
			if len(alive) != limit || open != limit || peak != limit || most != limit {
				t.Errorf("alive %d, open %d, peak %d, at the server %d; want %d each", len(alive), open, peak, most, limit)
			}
			closeAll(alive)
			s.closeAll()
			e.eventually(t, "192.0.2.2", 0)
		})
	}
}

func TestTCXRefusesByReset(t *testing.T) {
	t.Parallel()
	e, there := foreignEdge(t, rule.Limits{})
	if !there {
		return
	}
	e.Listen("[::]:25")
	e.setPort(t, rule.Port{Reset: true}, rule.Limits{})
	e.Address("eth0", "2001:db8:9::1/64")
	e.peer.Address("eth0", "2001:db8:9::3/64")
	for src, to := range map[string]string{"192.0.2.3": "192.0.2.1:25", "2001:db8:9::3": "[2001:db8:9::1]:25"} {
		if err := e.dialError(src, to); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("the stranger %s on a port that refuses by RST: %v", src, err)
		}
	}
	if err := e.dialError("192.0.2.2", "192.0.2.1:25"); err != nil {
		t.Errorf("the allowed source: %v", err)
	}
	e.setPort(t, rule.Port{Reset: true, Observe: true}, rule.Limits{})
	if err := e.dialError("192.0.2.3", "192.0.2.1:25"); err != nil {
		t.Errorf("a stranger on a port that only observes: %v", err)
	}
}

// tcxPinPath is where the program is pinned.
func tcxPinPath(f *loader.Filter) string { return filepath.Join(f.Dir(), "filter", "tcx") }
