package load

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is processor time that was used up to a moment.
type usage struct {
	at          time.Time
	own         time.Duration
	busy, total uint64 // of the machine, in ticks of /proc/stat; 0 = not known
}

func readUsage() usage {
	u := usage{at: time.Now()}
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) == nil {
		u.own = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u
	}
	line, _, _ := strings.Cut(string(data), "\n")
	for i, word := range strings.Fields(line) {
		n, err := strconv.ParseUint(word, 10, 64)
		if err != nil || i > 8 { // guest time is in user time already
			continue
		}
		u.total += n
		if i != 4 && i != 5 { // idle, iowait
			u.busy += n
		}
	}
	return u
}

// since is the share of the processors that this program used, and that was used by anyone, 0..1.
func (u usage) since(earlier usage) (own, machine float64) {
	if wall := u.at.Sub(earlier.at); wall > 0 {
		own = float64(u.own-earlier.own) / float64(wall) / float64(runtime.GOMAXPROCS(0))
	}
	if ticks := u.total - earlier.total; u.total > earlier.total && ticks > 0 {
		machine = float64(u.busy-earlier.busy) / float64(ticks)
	}
	return own, machine
}
