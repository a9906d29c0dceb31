package relay

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	glob "path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDialogues plays each script of testdata/dialogue, on a fresh server for
// every way of connecting that it names. A script is lines of
//
//	on WAY…     how to connect: a port (25, 465, 587); +tls: STARTTLS first;
//	            +login: as alice, under TLS; +peer: 127.0.0.1 may relay
//	c: LINE     the client sends LINE and CRLF; \r \n \x00 \\ are escapes
//	c> BYTES    the same without the CRLF
//	c@ LINE     as c:, with what stands in {} in base64
//	c* N LINE   N times c:
//	s: GLOB     the server says a line like this
//	s* N GLOB   N such lines
//	tls         both begin TLS
//	eof         the server has closed the connection
//	silent      the server has nothing more to say (it answers a NOOP next)
//	queued N    N messages are in the queue
//	body TEXT   the last message ends in TEXT
//	nobody TEXT no message holds TEXT
//	fail full|disk  the queue fails from now on
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogue/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		script, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(script), "\n")
		ways, ok := strings.CutPrefix(lines[0], "on ")
		if !ok {
			t.Fatalf("%s: begins without on", file)
		}
		for way := range strings.FieldsSeq(ways) {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+way, func(t *testing.T) {
				t.Parallel()
				d := dial(t, way)
				for i, line := range lines[1:] {
					d.where = fmt.Sprintf("%s:%d: %s", file, i+2, line)
					d.step(line)
				}
			})
		}
	}
}

// dialogue is one client's side.
type dialogue struct {
	t     *testing.T
	b     *bench
	conn  net.Conn
	r     *bufio.Reader
	where string
}

// dial starts a server and connects in the given way.
func dial(t *testing.T, way string) *dialogue {
	port, how, _ := strings.Cut(way, "+")
	set := testSettings()
	if how == "peer" {
		set = withPeer(set)
	}
	d := &dialogue{t: t, b: start(t, set), where: "on " + way}
	d.connect(port)
	if how == "tls" || how == "login" && port != "465" {
		for _, l := range []string{"s: 220 *", "c: EHLO c", "s* 7 250-*", "s: 250 SIZE *", "c: STARTTLS", "s: 220 *", "tls"} {
			d.step(l)
		}
	} else if how != "" {
		d.step("s: 220 *")
	}
	if how != "" {
		d.step("c: EHLO client.example")
		d.step("s* 7 250-*")
		d.step("s: 250 SIZE *")
	}
	if how == "login" {
		d.step(`c@ AUTH PLAIN {\x00alice\x00secret}`)
		d.step("s: 235 *")
	}
	return d
}

func (d *dialogue) connect(port string) {
	conn, err := net.Dial("tcp", d.b.addr[port])
	if err != nil {
		d.t.Fatal(err)
	}
	if port == "465" {
		conn = tls.Client(conn, insecureTLS)
	}
	d.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	d.conn, d.r = conn, bufio.NewReader(conn)
}

func (d *dialogue) step(line string) {
	d.t.Helper()
	cmd, arg, _ := strings.Cut(line, " ")
	switch cmd {
	case "", "#":
	case "c:":
		d.send(unescape(d, arg) + "\r\n")
	case "c>":
		d.send(unescape(d, arg))
	case "c@":
		head, rest, _ := strings.Cut(arg, "{")
		plain, tail, _ := strings.Cut(rest, "}")
		d.send(head + base64.StdEncoding.EncodeToString([]byte(unescape(d, plain))) + tail + "\r\n")
	case "c*":
		n, what := number(d, arg)
		d.send(strings.Repeat(unescape(d, what)+"\r\n", n))
	case "s:":
		d.expect(arg)
	case "s*":
		n, pattern := number(d, arg)
		for range n {
			d.expect(pattern)
		}
	case "tls":
		d.conn = tls.Client(d.conn, insecureTLS)
		d.r = bufio.NewReader(d.conn)
	case "eof":
		if got, err := d.r.ReadString('\n'); err == nil {
			d.t.Fatalf("%s\nthe server says %q", d.where, got)
		}
	case "silent":
		d.send("NOOP\r\n")
		d.expect("250 2.0.0 ok")
	default:
		d.check(cmd, arg)
	}
}

// check looks at what came of it.
func (d *dialogue) check(cmd, arg string) {
	d.t.Helper()
	items := d.b.queue.all()
	switch cmd {
	case "queued":
		if fmt.Sprint(len(items)) != arg {
			d.t.Fatalf("%s\n%d messages are queued", d.where, len(items))
		}
	case "body":
		if len(items) == 0 || !strings.HasSuffix(items[len(items)-1].body, unescape(d, arg)) {
			d.t.Fatalf("%s\nqueued is %+v", d.where, items)
		}
	case "nobody":
		for _, it := range items {
			if strings.Contains(it.body, unescape(d, arg)) {
				d.t.Fatalf("%s\nqueued is %q", d.where, it.body)
			}
		}
	case "fail":
		d.b.queue.mu.Lock()
		d.b.queue.fail = map[string]error{"full": fmt.Errorf("%w: 0 bytes left", errFull), "disk": errDisk}[arg]
		d.b.queue.mu.Unlock()
	default:
		d.t.Fatalf("%s\nno such step", d.where)
	}
}

func (d *dialogue) send(s string) {
	d.t.Helper()
	if _, err := d.conn.Write([]byte(s)); err != nil {
		d.t.Fatalf("%s\n%v", d.where, err)
	}
}

func (d *dialogue) expect(pattern string) {
	d.t.Helper()
	line, err := d.r.ReadString('\n')
	if err != nil {
		d.t.Fatalf("%s\nthe server said %q, then: %v", d.where, line, err)
	}
	text, crlf := strings.CutSuffix(line, "\r\n")
	if ok, err := glob.Match(pattern, strings.ReplaceAll(text, "/", "|")); err != nil || !ok || !crlf {
		d.t.Fatalf("%s\nthe server says %q", d.where, line)
	}
}

func unescape(d *dialogue, s string) string {
	d.t.Helper()
	out, err := strconv.Unquote(`"` + strings.ReplaceAll(s, `"`, `\"`) + `"`)
	if err != nil {
		d.t.Fatalf("%s\n%v", d.where, err)
	}
	return out
}

func number(d *dialogue, s string) (int, string) {
	d.t.Helper()
	num, rest, _ := strings.Cut(s, " ")
	n, err := strconv.Atoi(num)
	if err != nil {
		d.t.Fatalf("%s\n%v", d.where, err)
	}
	return n, rest
}
