package kill

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/synward/synward/relay"
)

// nobody is the user that the relay runs as.
const nobody = 65534

// victim is the relay's process, and what outlives it: its sockets and spool.
type victim struct {
	t           *testing.T
	bin, dir    string
	front, ctrl *os.File // the listeners, as the agent holds them
	addr        string
	settings    relay.Settings
	http        *http.Client
	cmd         *exec.Cmd
}

// newVictim builds the binary and binds its sockets.
func newVictim(t *testing.T, hop netip.AddrPort) *victim {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "synward-kill-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	v := &victim{t: t, dir: dir, bin: filepath.Join(dir, "synward-relay")}
	if out, err := exec.Command("go", "build", "-o", v.bin, "../../cmd/synward-relay").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	spool, sock := filepath.Join(dir, "spool"), filepath.Join(dir, "relay.sock")
	for _, err := range []error{os.Chmod(dir, 0o755), os.Mkdir(spool, 0o700), os.Chown(spool, nobody, nobody)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	ctrl, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v.addr = front.Addr().String()
	if v.ctrl, err = ctrl.(*net.UnixListener).File(); err != nil {
		t.Fatal(err)
	}
	if v.front, err = front.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	ctrl.(*net.UnixListener).SetUnlinkOnClose(false)
	ctrl.Close()
	front.Close()
	t.Cleanup(func() { v.ctrl.Close(); v.front.Close() })
	v.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", sock)
	}}}
	v.settings = relay.Settings{
		Hostname:   "relay.example",
		Smarthosts: []relay.Smarthost{{Host: hop.Addr().String(), Port: hop.Port(), TLS: relay.TLSNone}},
		Peers:      []relay.Peer{{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Name: "load"}},
		Retry:      relay.RetryConfig{Min: relay.Duration(time.Second), Max: relay.Duration(time.Second)},
	}
	v.settings.Quota.Source.MessagesPerDay = 1 << 29 // so that quotas are counted too
	return v
}

// start runs the relay and gives it its settings.
func (v *victim) start() {
	v.t.Helper()
	log, err := os.OpenFile(filepath.Join(v.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		v.t.Fatal(err)
	}
	defer log.Close()
	v.cmd = exec.Command(v.bin)
	v.cmd.Env = []string{"SYNWARD_LISTENERS=admin,25/starttls", "SYNWARD_SPOOL=" + filepath.Join(v.dir, "spool")}
	v.cmd.ExtraFiles = []*os.File{v.ctrl, v.front}
	v.cmd.Stderr = log
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	doc, err := json.Marshal(v.settings)
	if err != nil {
		v.t.Fatal(err)
	}
	if code, text := v.ask(http.MethodPut, "/v1/settings", doc); code != http.StatusOK {
		v.t.Fatalf("settings: %d %s\n%s", code, text, v.said())
	}
}

// kill ends the relay at once, and returns when that was begun and done.
func (v *victim) kill() (begun, done time.Time) {
	v.t.Helper()
	begun = time.Now()
	if err := v.cmd.Process.Kill(); err != nil {
		v.t.Fatalf("kill: %v\n%s", err, v.said())
	}
	if err := v.cmd.Wait(); v.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		v.t.Fatalf("it had ended by itself: %v\n%s", err, v.said())
	}
	return begun, time.Now()
}

func (v *victim) ask(method, path string, doc []byte) (code int, text string) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://relay"+path, bytes.NewReader(doc))
	if err != nil {
		v.t.Fatal(err)
	}
	resp, err := v.http.Do(req)
	if err != nil {
		v.t.Fatalf("%s %s: %v\n%s", method, path, err, v.said())
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// waiting is how many messages are in the queue.
func (v *victim) waiting() int {
	v.t.Helper()
	_, text := v.ask(http.MethodGet, "/v1/status", nil)
	var st struct {
		Queue struct {
			Items int `json:"items"`
		} `json:"queue"`
	}
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		v.t.Fatal(err)
	}
	return st.Queue.Items
}

// counted is how many messages the quota has seen.
func (v *victim) counted() int {
	v.t.Helper()
	code, text := v.ask(http.MethodGet, "/v1/quota?source=127.0.0.1", nil)
	var ans struct {
		Quotas []struct {
			Used struct {
				MessagesDay int `json:"messages_day"`
			} `json:"used"`
		} `json:"quotas"`
	}
	if err := json.Unmarshal([]byte(text), &ans); err != nil || len(ans.Quotas) != 1 {
		v.t.Fatalf("quota: %d %s", code, text)
	}
	return ans.Quotas[0].Used.MessagesDay
}

// said is the end of the process's log.
func (v *victim) said() string {
	b, err := os.ReadFile(filepath.Join(v.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}
