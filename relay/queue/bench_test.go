package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkAdd stores messages of 4 KiB durably and settles them, beside a
// file per message in the same run: the messages/s are the figure to compare.
func BenchmarkAdd(b *testing.B) {
	text := bytes.Repeat([]byte("0123456789abcde\n"), 256)
	for _, writers := range []int{1, 10, 50, 200} {
		b.Run(fmt.Sprintf("log/writers=%d", writers), func(b *testing.B) {
			q := open(b, b.TempDir(), Options{SegmentSize: 64 << 20})
			ctx, cancel := context.WithCancel(b.Context())
			var settler sync.WaitGroup
			defer settler.Wait() // before the queue is closed
			defer cancel()
			settler.Go(func() {
				for {
					it, err := q.Next(ctx)
					if err != nil {
						return
					}
					if err := q.Settle(it.ID, Update{Results: []Result{{Status: Delivered}}}); err != nil {
						b.Error(err)
						return
					}
				}
			})
			run(b, writers, func(int64) error {
				_, err := q.Add(ctx, envelope("bob@example.org"), bytes.NewReader(text))
				return err
			})
		})
		b.Run(fmt.Sprintf("files/writers=%d", writers), func(b *testing.B) {
			dir := b.TempDir()
			run(b, writers, func(i int64) error {
				f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
				if err != nil {
					return err
				}
				_, err = f.Write(text)
				return errors.Join(err, f.Sync(), f.Close(), syncDir(dir))
			})
		})
	}
}

func run(b *testing.B, writers int, do func(i int64) error) {
	var n atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range writers {
		wg.Go(func() {
			for {
				i := n.Add(1)
				if i > int64(b.N) {
					return
				}
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
