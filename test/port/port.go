// Package port picks TCP ports for servers under test that must keep their address over a restart.
package port

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Ports are taken from below 32768, where Linux begins to pick the source ports of outgoing connections (and BSD and Windows
// above that). Inside that range a port that a stopped server has left may be taken before its restart, even by the very client
// that keeps trying to reach it: a TCP connection from a port to itself succeeds.
const low, high = 20000, 32700

// Free returns n different TCP ports on which nothing listens on 127.0.0.1. Nothing reserves them.
func Free(t testing.TB, n int) []int {
	t.Helper()
	ports := make([]int, 0, n)
	// All listeners stay open until the end, so that no port is returned twice.
	for range 1000 {
		if len(ports) == n {
			return ports
		}
		port := low + rand.IntN(high-low)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close()
		ports = append(ports, port)
	}
	t.Fatalf("found %d free ports of %d between %d and %d", len(ports), n, low, high)
	return nil
}
