package queue

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// The helper is this test binary again: it adds and settles as fast as it can
// and says each time that it is done, until it is killed.
const helperDir = "SYNWARD_QUEUE_HELPER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		fmt.Fprintln(os.Stderr, load(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func load(dir string) error {
	q, err := Open(dir, killOptions())
	if err != nil {
		return err
	}
	errs := make(chan error)
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				unique := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				text := unique + strings.Repeat(" x", rand.IntN(3000))
				if _, err := q.Add(context.Background(), envelope("a@b"), strings.NewReader(text)); err != nil {
					errs <- err
					return
				}
				fmt.Println("added", unique)
			}
		}()
	}
	go func() {
		for {
			err := take(q, func(unique string) { fmt.Println("taken", unique) })
			if !errors.Is(err, context.DeadlineExceeded) {
				errs <- err
				return
			}
		}
	}()
	return <-errs
}

// take settles what is due, until nothing has been for a while. It reports an
// item first, as a next hop has it before we know.
func take(q *Queue, report func(string)) error {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		it, err := q.Next(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if err != nil {
			return err
		}
		r, err := q.Body(it.ID)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		unique, rest, _ := strings.Cut(string(b), " ")
		if it.Attempts == 0 && rand.IntN(4) == 0 {
			err = q.Settle(it.ID, Update{Next: time.Now().Add(50 * time.Millisecond), Err: "later"})
		} else {
			if strings.Trim(rest, " x") != "" {
				return fmt.Errorf("%s: damaged body", unique)
			}
			report(unique)
			err = q.Settle(it.ID, Update{Results: []Result{{Status: Delivered}}})
		}
		if err != nil {
			return err
		}
	}
}

func killOptions() Options {
	return Options{SegmentSize: 256 << 10, InlineMax: 4 << 10, CacheBytes: 64 << 10}
}

func TestKillUnderLoad(t *testing.T) {
	dir := t.TempDir()
	added := map[string]bool{}
	taken := map[string]map[int]bool{} // in which rounds
	took := func(unique string, round int) {
		if taken[unique] == nil {
			taken[unique] = map[int]bool{}
		}
		if taken[unique][round] {
			t.Errorf("%s delivered twice without a crash in between", unique)
		}
		taken[unique][round] = true
	}
	const rounds = 6
	for round := range rounds {
		for _, line := range runAndKill(t, dir, 50+rand.IntN(250)) {
			what, unique, _ := strings.Cut(line, " ")
			switch what {
			case "added":
				added[unique] = true
			case "taken":
				took(unique, round)
			}
		}
	}
	q := open(t, dir, killOptions())
	if _, err := os.Stat(dir + "/corrupt"); err == nil {
		t.Log("a torn record was set aside") // allowed: the kill may fall into a write
	}
	for len(q.List()) > 0 {
		if err := take(q, func(u string) { took(u, rounds) }); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	lost := 0
	for unique := range added {
		if taken[unique] == nil {
			lost++
		}
	}
	if lost > 0 || len(added) < 100 {
		t.Errorf("%d of %d accepted messages lost", lost, len(added))
	}
}

// runAndKill starts the helper and kills it once it has said n lines. It
// returns its whole lines.
func runAndKill(t *testing.T, dir string, n int) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), helperDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	var lines []string
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			break
		}
		if lines = append(lines, strings.TrimSpace(line)); len(lines) >= n {
			once.Do(func() { _ = cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil || len(lines) < n {
		t.Fatalf("helper ended by itself: %v\n%s", err, stderr.String())
	}
	return lines
}
