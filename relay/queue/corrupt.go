package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// setAside takes a damaged item out of the queue and leaves what there is of
// it in corrupt/, for a person to look at.
func (q *Queue) setAside(e *entry, raw []byte, cause error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e.gone {
		return
	}
	id := formatID(e.id)
	files := map[string]func(io.Writer) error{
		id + ".json": func(w io.Writer) error { return json.NewEncoder(w).Encode(e.item()) },
		id + ".raw": func(w io.Writer) error {
			if e.pack == nil {
				_, err := w.Write(raw)
				return err
			}
			f, err := os.Open(e.pack.path)
			if err != nil {
				return err
			}
			_, err = io.Copy(w, io.NewSectionReader(f, e.place.Off, e.place.Len))
			return errors.Join(err, f.Close())
		},
	}
	var errs []error
	for name, write := range files {
		errs = append(errs, q.keepCorrupt(name, write))
	}
	q.opt.Log.Error("item is damaged on disk: set aside, not delivered", "item", id, "from", e.From,
		"dir", filepath.Join(q.dir, "corrupt"), "cause", cause, "error", errors.Join(errs...))
	q.damaged++
	if err := q.remove(e, "corrupt", false); err != nil {
		q.opt.Log.Error("set aside", "item", id, "error", err)
	}
}

// countDamaged is how many pieces an earlier process or this one has set aside,
// and nobody has taken away.
func countDamaged(dir string) int {
	files, err := os.ReadDir(filepath.Join(dir, "corrupt"))
	if err != nil {
		return 0 // there is none
	}
	names := map[string]bool{}
	for _, f := range files {
		names[strings.TrimSuffix(f.Name(), filepath.Ext(f.Name()))] = true
	}
	return len(names)
}

// keepCorrupt writes a file into corrupt/.
func (q *Queue) keepCorrupt(name string, write func(io.Writer) error) error {
	dir := filepath.Join(q.dir, "corrupt")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	return nil
}
