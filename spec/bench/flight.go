// SPDX-License-Identifier: MIT

// Two goroutines that ask singleflight for the same key: flight CALLS prints
// the nanoseconds that a call takes.  They are not tied to threads of the
// system: that would only make Go's waiting dearer.
package main

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

var group singleflight.Group

func work() (interface{}, error) {
	return 42, nil
}

func together(n int) time.Duration {
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for g := 0; g < 2; g++ {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			ready.Done()
			<-start
			for i := 0; i < n; i++ {
				group.Do("player:0:0000", work)
			}
		}()
	}
	ready.Wait()
	began := time.Now()
	close(start)
	done.Wait()
	return time.Since(began)
}

func main() {
	n, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "usage: flight CALLS")
		os.Exit(1)
	}
	together(n) // warms up
	fmt.Printf("same %.3f\n", float64(together(n).Nanoseconds())/float64(n))
}
