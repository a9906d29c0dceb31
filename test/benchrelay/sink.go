package main

import (
	"bufio"
	"bytes"
	"net"
	"strconv"
	"sync"
	"time"
)

// sink takes all mail, throws it away and knows the number in each.
type sink struct {
	ln net.Listener

	mu    sync.Mutex
	seen  map[int64]int // arrivals of each number
	last  time.Time
	conns map[net.Conn]bool
}

func newSink() (*sink, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{ln: ln, seen: map[int64]int{}, conns: map[net.Conn]bool{}}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = true
			s.mu.Unlock()
			go s.serve(c)
		}
	}()
	return s, nil
}

func (s *sink) port() int { return s.ln.Addr().(*net.TCPAddr).Port }

func (s *sink) close() {
	s.ln.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
}

func (s *sink) arrived(number int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[number]++
	s.last = time.Now()
}

// tally says how many of the numbers from..to have arrived, how many twice,
// and when the last of all came.
func (s *sink) tally(from, to int64) (arrived, twice int, last time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := from; n < to; n++ {
		if k := s.seen[n]; k > 0 {
			arrived++
			twice += k - 1
		}
	}
	return arrived, twice, s.last
}

var mark = []byte("X-Bench: ")

// serve is one connection. Replies leave with the last line that has come, so
// that a client that pipelines gets them in one packet.
func (s *sink) serve(c net.Conn) {
	defer func() {
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	r, w := bufio.NewReaderSize(c, 64<<10), bufio.NewWriterSize(c, 4<<10)
	w.WriteString("220 sink\r\n")
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		line, err := r.ReadSlice('\n')
		if err != nil || len(line) < 6 {
			return
		}
		switch string(bytes.ToUpper(line[:4])) {
		case "EHLO":
			w.WriteString("250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n")
		case "DATA":
			w.WriteString("354 go\r\n")
			if w.Flush() != nil {
				return
			}
			number, err := readMessage(r)
			if err != nil {
				return
			}
			s.arrived(number)
			w.WriteString("250 2.0.0 ok\r\n")
		case "QUIT":
			w.WriteString("221 bye\r\n")
			w.Flush()
			return
		default:
			w.WriteString("250 ok\r\n")
		}
	}
}

// readMessage reads to the last dot and returns the message's number.
func readMessage(r *bufio.Reader) (int64, error) {
	number := int64(-1)
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case err != nil:
			return 0, err
		case len(line) == 3 && line[0] == '.':
			return number, nil
		case number < 0 && bytes.HasPrefix(line, mark):
			if number, err = strconv.ParseInt(string(bytes.TrimSpace(line[len(mark):])), 10, 64); err != nil {
				return 0, err
			}
		}
	}
}
