package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// ErrDown is wrapped by a Client's errors where no agent listens on the socket.
var ErrDown = errors.New("the agent is not running")

// ErrHangs is wrapped by Client.Status where an agent listens and says nothing.
var ErrHangs = errors.New("the agent does not answer")

// patience is how long an agent may take to say how it is. It answers in
// milliseconds, or in a second while it takes in a million entries.
const patience = 10 * time.Second

// Client speaks to an agent.
type Client struct {
	path string
	http *http.Client
}

// NewClient makes a client for a socket. It connects when it is used.
func NewClient(socket string) *Client {
	var d net.Dialer
	return &Client{path: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// Header is what a request says beside its body, for If-Match and the like.
type Header map[string]string

// Do sends a request with in as its JSON body (nil = none) and decodes the
// answer into out (nil = dropped). An error that the agent reports is an *Error.
func (c *Client) Do(ctx context.Context, method, path string, in, out any, h Header) (http.Header, error) {
	resp, err := c.send(ctx, method, path, in, h)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.Header, err
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return nil, fmt.Errorf("read the agent's answer: %w", err)
	}
	return resp.Header, nil
}

// Status asks how the agent and all that it looks after are. The error wraps
// ErrDown or ErrHangs where it cannot say.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := c.Do(asked, http.MethodGet, "/v1/status", nil, &st, nil)
	if err != nil && ctx.Err() == nil && asked.Err() != nil {
		err = fmt.Errorf("%s: %w; systemd ends one that hangs for 30 s, or do it at once: systemctl restart synward", c.path, ErrHangs)
	}
	return st, err
}

// Lines sends a GET and calls fn for every JSON line of the answer until it
// ends, fn fails or the context ends (nil).
func (c *Client) Lines(ctx context.Context, path string, fn func(json.RawMessage) error) error {
	resp, err := c.send(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var line json.RawMessage
		err := dec.Decode(&line)
		switch {
		case ctx.Err() != nil, errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("the agent went away: %w", err)
		}
		if err := fn(line); err != nil {
			return err
		}
	}
}

func (c *Client) send(ctx context.Context, method, path string, in any, h Header) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("write request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	for k, v := range h {
		req.Header.Set(k, v)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readError(resp)
}

// readError makes an Error of an answer, also of one that is not ours.
func readError(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	e := &Error{}
	if json.Unmarshal(b, e) != nil || e.Message == "" {
		e.Message, _, _ = strings.Cut(strings.TrimSpace(string(b)), "\n")
	}
	if e.Message == "" {
		e.Message = resp.Status
	}
	e.Status = resp.StatusCode
	return e
}

// explain says what to do about a socket that does not answer.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: %w; start it with: systemctl start synward (or name its socket with --socket)", c.path, ErrDown)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied; run as root or as a member of the group synward", c.path)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op
	}
	return fmt.Errorf("speak to the agent at %s: %w", c.path, err)
}
