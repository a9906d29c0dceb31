package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const workers = 16 // connections that the client has under way at once

var smtp = netip.AddrPortFrom(server, 25)

// serveSMTP greets, and takes leave at QUIT; the server closes first, so no port
// of the client's stays in TIME_WAIT. It goes on until the process is ended.
func serveSMTP() error {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", smtp.String())
	if err != nil {
		return err
	}
	fmt.Print(".") // tells the bench that it listens
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(c, "220 bench.example ESMTP\r\n"); err != nil {
				return
			}
			if line, err := bufio.NewReader(c).ReadString('\n'); err == nil && strings.HasPrefix(line, "QUIT") {
				_, _ = io.WriteString(c, "221 bye\r\n")
			}
		}()
	}
}

// clientRun makes connections for a while and writes what came of it.
func clientRun(span time.Duration) error {
	ctx, stop := context.WithTimeout(context.Background(), span)
	defer stop()
	end, _ := ctx.Deadline()
	var (
		mu    sync.Mutex
		done  int
		times []time.Duration
		wg    sync.WaitGroup
	)
	for range workers {
		wg.Go(func() {
			for time.Now().Before(end) {
				began := time.Now()
				err := dialogue(ctx)
				took := time.Since(began)
				mu.Lock()
				times = append(times, took) // one that does not end counts with its age
				if err == nil {
					done++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(times)
	at := func(q float64) float64 {
		return float64(times[min(len(times)-1, int(q*float64(len(times))))].Microseconds()) / 1000
	}
	return json.NewEncoder(os.Stdout).Encode(outcome{
		Connections: done, Rate: float64(done) / span.Seconds(), P50: at(0.5), P99: at(0.99),
	})
}

// dialogue is one whole connection: greeting, QUIT, the server's leave, its end.
func dialogue(ctx context.Context) error {
	d := net.Dialer{}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, "tcp", smtp.String())
	if err != nil {
		return err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "QUIT\r\n"); err != nil {
		return err
	}
	if _, err := r.ReadString('\n'); err != nil {
		return err
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("wait for the server's end: %w", err)
	}
	return nil
}
