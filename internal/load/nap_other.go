//go:build !linux

package load

import "time"

const canNap = false

func nap(time.Duration) {}
