package load

import (
	"syscall"
	"time"
)

const canNap = true

// nap sleeps on the thread; a signal may end it early.
func nap(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil)
}
