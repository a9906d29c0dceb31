package main

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/synward/synward/test/stage"
)

const (
	password = "correct horse battery staple"
	client   = "client"
	stranger = "stranger"
)

var letter = stage.Letter{
	User: "alice", Password: password,
	From: "alice@edge.example", To: "bob@hop.example",
	Data: "Subject: the whole path once\r\n\r\nHello Bob,\r\nthis one came through.\r\n",
}

// play is the demo's story. An error says that the stage could not be set.
func (s *show) play(bin string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			var ok bool
			if err, ok = r.(error); !ok {
				panic(r)
			}
		}
	}()
	s.bin = bin
	fmt.Fprintf(s.out, `synward: three hosts and a next hop, made of network namespaces

  client   %-13s ──eth0─┐
                               edge: filter, agent, relay ──up0── next hop %s
  stranger %-13s ──eth1─┘
`, stage.ClientAddr, stage.HopAddr, stage.StrangerAddr)
	s.scene("The agent starts: filter loaded, attached, relay up", s.start)
	s.scene("An account for alice; the password comes by stdin", func() (string, bool) {
		return s.command(password+"\n", "user", "add", "alice")
	})
	s.scene("Nobody is allowed yet: the client's SYN dies at the card", s.silence(client))
	s.scene("The client's prefix is added; in force when the command returns", func() (string, bool) {
		return s.command("", "allow", "add", stage.ClientPrefix, "--ports", "465,587", "--note", "branch office")
	})
	s.scene("The client submits a mail by STARTTLS and AUTH; it arrives", s.mail)
	s.scene("The stranger knocks on 25, 465 and 587: silence, no RST, no ICMP", s.silence(stranger))
	s.scene("explain agrees with what the wire showed", s.explain)
	s.scene("The agent is killed with -9: for the stranger nothing changes", s.kill)
	s.scene("A new agent takes up the filter and the relay as they are", s.restart)
	s.scene("The prefix is removed; the client knocks", s.remove)
	s.scene("Who was refused, and why", func() (string, bool) {
		out, ok := s.command("", "events")
		return out, ok && strings.Contains(out, stage.StrangerAddr)
	})
	s.scene("The counters", func() (string, bool) { return s.command("", "status") })
	return nil
}

// command runs synward on the edge and shows it as a person would type it.
func (s *show) command(input string, args ...string) (string, bool) {
	began := time.Now()
	out, code := s.stage.SynwardInput(input, args...)
	took := time.Since(began).Round(time.Millisecond)
	var words []string
	for _, a := range args {
		if strings.ContainsAny(a, " ") {
			a = fmt.Sprintf("%q", a)
		}
		words = append(words, a)
	}
	return fmt.Sprintf("$ synward %s    (exit status %d, %s)\n%s", strings.Join(words, " "), code, took, out), code == 0
}

func (s *show) start() (string, bool) {
	s.stage = stage.New(s, s.bin, "")
	s.stage.StartAgent()
	return s.command("", "status")
}

// silence knocks on all three ports at once and wants no answer.
func (s *show) silence(host string) func() (string, bool) {
	return func() (string, bool) {
		from, addr := s.stage.Client, stage.EdgeForClient
		if host == stranger {
			from, addr = s.stage.Stranger, stage.EdgeForStranger
		}
		ports := []string{"25", "465", "587"}
		answers := make([]string, len(ports))
		done := make(chan int)
		for i, port := range ports {
			go func() {
				answers[i] = stage.Knock(from, net.JoinHostPort(addr, port), 1500*time.Millisecond)
				done <- i
			}()
		}
		for range ports {
			<-done
		}
		said, ok := "", true
		for i, port := range ports {
			said += fmt.Sprintf("%s:%s: %s\n", addr, port, answers[i])
			ok = ok && answers[i] == "silence"
		}
		return said, ok
	}
}

func (s *show) mail() (string, bool) {
	n := len(s.stage.Sink.Mails())
	began := time.Now()
	if err := s.stage.Submit(s.stage.Client, net.JoinHostPort(stage.EdgeForClient, "587"), letter); err != nil {
		return err.Error(), false
	}
	accepted := time.Since(began)
	m, ok := s.stage.Sink.Wait(n+1, 10*time.Second)
	if !ok {
		return "the next hop did not get it", false
	}
	said := fmt.Sprintf("accepted (on disk) after %s, at the next hop after %s, TLS to the next hop: %v\n",
		accepted.Round(time.Millisecond), m.At.Sub(began).Round(time.Millisecond), m.TLS)
	said += "as it arrived:\n  " + strings.ReplaceAll(strings.TrimSpace(m.Data), "\n", "\n  ")
	return said, m.TLS && strings.Contains(m.Data, "this one came through") && strings.Contains(m.Data, "Received: from")
}

func (s *show) explain() (string, bool) {
	a, ok1 := s.command("", "explain", stage.ClientAddr, "--port", "587")
	b, ok2 := s.command("", "explain", stage.StrangerAddr, "--port", "587")
	return a + b, ok1 && ok2 && strings.Contains(a, "pass") && strings.Contains(b, "drop")
}

func (s *show) kill() (string, bool) {
	pid := s.stage.AgentPID()
	_ = s.stage.EndAgent(syscall.SIGKILL)
	heard := stage.Knock(s.stage.Stranger, net.JoinHostPort(stage.EdgeForStranger, "587"), 1500*time.Millisecond)
	said, ok := s.mail()
	status, answered := s.command("", "status")
	first, _, _ := strings.Cut(said, "\n")
	return fmt.Sprintf("kill -9 %d; the stranger meets %s\nthe client's next mail: %s\n%s", pid, heard, first, status),
		heard == "silence" && ok && answered
}

func (s *show) restart() (string, bool) {
	s.stage.StartAgent()
	list, ok := s.command("", "allow", "list")
	said, sent := s.mail()
	first, _, _ := strings.Cut(said, "\n")
	return list + "a mail: " + first, ok && sent && strings.Contains(list, stage.ClientPrefix)
}

func (s *show) remove() (string, bool) {
	out, ok := s.command("", "allow", "remove", stage.ClientPrefix)
	knock, silent := s.silence(client)()
	return out + knock, ok && silent
}
