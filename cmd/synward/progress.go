package main

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// watched is a reader that shows how far it is, until done is called; size is
// in bytes, -1 where nobody knows it.
func watched(w io.Writer, r io.Reader, size int64, what string) (_ io.Reader, done func()) {
	bar := progress(w, size, what, true)
	reader := progressbar.NewReader(r, bar)
	return &reader, func() { bar.Finish() }
}

// sizeOf is how many bytes come of a stream, -1 where nobody knows it.
func sizeOf(in io.Reader) int64 {
	if f, ok := in.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			return info.Size()
		}
	}
	return -1
}

// progress is a bar on a terminal, and nothing elsewhere.
func progress(w io.Writer, total int64, what string, bytes bool) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(bytes), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetVisibility(isTerminal(w)), progressbar.OptionSetSpinnerChangeInterval(0)) // 0: no goroutine of its own, which races
}

// spinEvery is how often what is under way moves.
const spinEvery = 200 * time.Millisecond

// spin shows that something is under way, of which nobody knows how long it
// takes, until done is called.
func spin(w io.Writer, what string) (done func()) {
	bar, shown := progress(w, -1, what, false), false
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(spinEvery); ; {
			select {
			case <-stop:
				tick.Stop()
				if shown { // else it was too quick to be seen, and nothing is to be cleared
					bar.Finish()
				}
				return
			case <-tick.C:
				shown = true
				bar.Add(1)
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(stop)
		<-stopped
	})
}
