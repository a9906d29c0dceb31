package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReadsWhatAGuestSays(t *testing.T) {
	const good = "guest: run /a.test\n=== RUN   TestA\n    a_test.go:1: fine\n--- PASS: TestA (0.1s)\nPASS\nguest: exit 0 after 1s\n"
	const bad = "guest: run /b.test\n=== RUN   TestB\n=== RUN   TestB/x\n    b_test.go:1: wrong\n--- FAIL: TestB (0.1s)\n    --- FAIL: TestB/x (0.1s)\n" +
		"=== RUN   TestC\n--- PASS: TestC (0s)\nFAIL\nguest: exit 1 after 1s\n"
	for name, c := range map[string]struct {
		out                 string
		passed, failed, bad int
		ended               bool
		words               []string
	}{
		"all passed":     {good + "guest: end\n", 1, 0, 0, true, nil},
		"one failed":     {good + bad + "guest: end\n", 2, 1, 1, true, []string{"    b_test.go:1: wrong", "--- FAIL: TestB (0.1s)"}},
		"cut":            {good + "guest: run /b.test\n=== RUN   TestB\n", 1, 0, 0, false, nil},
		"a test crashed": {"guest: run /b.test\npanic: oh\nguest: exit 2 after 1s\nguest: end\n", 0, 0, 1, true, []string{"panic: oh"}},
		"nothing":        {"", 0, 0, 0, false, nil},
	} {
		r := read(c.out)
		if r.passed != c.passed || r.failed != c.failed || r.bad != c.bad || r.ended != c.ended {
			t.Errorf("%s: %+v", name, r)
		}
		for _, w := range c.words {
			if !slices.Contains(r.failures, w) {
				t.Errorf("%s: failures %q lack %q", name, r.failures, w)
			}
		}
	}
}

func TestKernelFaults(t *testing.T) {
	log := filepath.Join(t.TempDir(), "console")
	if err := os.WriteFile(log, []byte("[1] fine\n[2] BUG: kernel NULL pointer dereference\n[3] fine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if faults, err := kernelFaults(log); err != nil || len(faults) != 1 || !strings.Contains(faults[0], "NULL") {
		t.Errorf("%q, %v", faults, err)
	}
}

func TestCPIO(t *testing.T) {
	var buf bytes.Buffer
	c := newCPIO(&buf)
	c.file("a/b/init", []byte("hello"))
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for b := buf.Bytes(); len(b) >= 110; {
		if string(b[:6]) != "070701" {
			t.Fatalf("no header at %d", buf.Len()-len(b))
		}
		size, nameSize := hex(t, b[54:62]), hex(t, b[94:102])
		names = append(names, string(b[110:110+nameSize-1]))
		body := (110 + nameSize + 3) &^ 3
		if names[len(names)-1] == "a/b/init" && string(b[body:body+size]) != "hello" {
			t.Errorf("body %q", b[body:body+size])
		}
		b = b[(body+size+3)&^3:]
	}
	if want := []string{"a", "a/b", "a/b/init", "TRAILER!!!"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

func hex(t *testing.T, b []byte) (n int) {
	t.Helper()
	for _, c := range b {
		d := strings.IndexByte("0123456789abcdef", c)
		if d < 0 {
			t.Fatalf("%q is no number", b)
		}
		n = n<<4 | d
	}
	return n
}
