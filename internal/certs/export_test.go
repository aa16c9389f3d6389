package certs

import "testing"

// StartPebble is startPebble for the tests of what stands above this package.
func StartPebble(t *testing.T, httpPort, tlsPort int) (directory, root string) {
	p := startPebble(t, httpPort, tlsPort)
	return p.directory, p.root
}
