// SPDX-License-Identifier: MIT

// A goroutine that is asked and answers by channels: channel ROUNDS prints the
// nanoseconds of there and back.
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

func main() {
	n, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "usage: channel ROUNDS")
		os.Exit(1)
	}
	asked, answered := make(chan int), make(chan int)
	go func() {
		for i := range asked {
			answered <- i
		}
	}()
	began := time.Now()
	for i := 0; i < n; i++ {
		asked <- i
		<-answered
	}
	fmt.Printf("%.1f\n", float64(time.Since(began).Nanoseconds())/float64(n))
}
