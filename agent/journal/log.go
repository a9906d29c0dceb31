package journal

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Log keeps JSON lines in files of a folder, the newest of them.
type Log struct {
	dir   string
	name  string
	size  int64 // of a file, from which on the next one begins
	files int

	mu     sync.Mutex
	f      *os.File
	number int
	length int64
}

// logFiles is how many files a Log's bytes are spread over: so much of it goes
// when it is full.
const logFiles = 8

// OpenLog opens the log of a name in a folder, which is made where it is
// missing; it holds at most so many bytes.
func OpenLog(dir, name string, most int64) (*Log, error) {
	l := &Log{dir: dir, name: name, size: max(most/logFiles, 1), files: logFiles}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return l, fmt.Errorf("make the journal's folder: %w", err)
	}
	numbers, err := l.numbers()
	if err != nil {
		return l, err
	}
	if len(numbers) > 0 {
		l.number = numbers[len(numbers)-1]
	}
	return l, nil
}

func (l *Log) path(number int) string {
	return filepath.Join(l.dir, fmt.Sprintf("%s-%08d.jsonl", l.name, number))
}

// numbers are those of the files that are there, sorted.
func (l *Log) numbers() ([]int, error) {
	files, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("list the journal: %w", err)
	}
	var out []int
	for _, f := range files {
		var n int
		if _, err := fmt.Sscanf(f.Name(), l.name+"-%08d.jsonl", &n); err == nil && f.Name() == filepath.Base(l.path(n)) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Append writes a record. One that fails leaves nothing of itself behind.
func (l *Log) Append(record any) error {
	line, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	line = append(line, '\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(int64(len(line))); err != nil {
		return err
	}
	if _, err := l.f.WriteAt(line, l.length); err != nil {
		return errors.Join(fmt.Errorf("write the journal: %w", err), l.f.Truncate(l.length))
	}
	l.length += int64(len(line))
	return nil
}

// ready has a file open with room for some bytes. What a killed agent has left
// of a line at the end of one is cut off.
func (l *Log) ready(room int64) error {
	if l.f == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	if l.length == 0 || l.length+room <= l.size {
		return nil
	}
	l.f.Close()
	l.f = nil
	l.number++
	if err := l.open(); err != nil {
		return err
	}
	numbers, err := l.numbers()
	for _, n := range numbers {
		if n <= l.number-l.files {
			err = errors.Join(err, os.Remove(l.path(n)))
		}
	}
	return err
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.path(l.number), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the journal: %w", err)
	}
	whole, err := wholeLines(f)
	if err == nil {
		err = f.Truncate(whole)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("open the journal: %w", err)
	}
	l.f, l.length = f, whole
	return nil
}

// wholeLines is up to where a file has whole lines.
func wholeLines(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 1)
	for end := info.Size(); end > 0; end-- {
		if _, err := f.ReadAt(buf, end-1); err != nil {
			return 0, err
		}
		if buf[0] == '\n' {
			return end, nil
		}
	}
	return 0, nil
}

// Snapshot is the log as it stands, to be read once, oldest first. During runs
// while nothing is appended.
func (l *Log) Snapshot(during func()) (*Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	during()
	numbers, err := l.numbers()
	if err != nil {
		return nil, err
	}
	s := &Snapshot{}
	for _, n := range numbers {
		f, err := os.Open(l.path(n))
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		end := int64(-1)
		if n == l.number && l.f != nil {
			end = l.length
		}
		s.parts = append(s.parts, part{f, end})
	}
	return s, nil
}

// Close closes the file that is written to.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}

// Snapshot is a log at one moment.
type Snapshot struct{ parts []part }

type part struct {
	f   *os.File
	end int64 // -1 = to the end
}

// maxLine bounds a record.
const maxLine = 64 << 10

// Each calls fn for every record until it fails; lines that are no JSON are
// left out.
func (s *Snapshot) Each(fn func(json.RawMessage) error) error {
	for _, p := range s.parts {
		var r io.Reader = p.f
		if p.end >= 0 {
			r = io.LimitReader(p.f, p.end)
		}
		lines := bufio.NewScanner(r)
		lines.Buffer(make([]byte, 4096), maxLine)
		for lines.Scan() {
			if !json.Valid(lines.Bytes()) {
				continue
			}
			if err := fn(lines.Bytes()); err != nil {
				return err
			}
		}
		if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
			return fmt.Errorf("read the journal: %w", err)
		}
	}
	return nil
}

// Close closes the files.
func (s *Snapshot) Close() {
	for _, p := range s.parts {
		p.f.Close()
	}
}
