package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	slowDeadline = 5  // seconds, as the subjects are told
	slowTest     = 20 // seconds of each attack
	slowGrace    = 4  // seconds after the deadline in which the last connection must have gone
	slowConns    = 50
)

func slowSuite() suite {
	return suite{
		name:  "slow",
		title: "Slow clients",
		about: fmt.Sprintf("slowhttptest with %d connections, each of which sends or reads a little every second: headers (slowloris), a body, and the reading of a 64 MiB answer. "+
			"The subjects are given deadlines of %d s wherever they have one. A cell: of how many connections the subject let go, and when of the last one; it held the rest for %d s. "+
			"The last column: another client's calls, ten a second, all the while.", slowConns, slowDeadline, slowTest),
		columns: []string{"headers", "body", "read", "good client: answered", "slowest"},
		run:     runSlow,
	}
}

func runSlow(ctx context.Context, e *env, s *subject) (result, error) {
	if _, err := exec.LookPath("slowhttptest"); err != nil {
		return result{}, err
	}
	origin, err := simpleServer()
	if err != nil {
		return result{}, err
	}
	defer origin.Close()
	front, err := s.start(ctx, e, slow, origin.address)
	if err != nil {
		return result{}, err
	}
	defer front.stop()
	r, good := result{}, goodClient{url: "http://" + front.h1 + "/good"}
	stop := good.begin(ctx)
	for _, attack := range []struct {
		name string
		args []string
	}{
		{"headers", []string{"-H", "-x", "8", "-i", "1", "-u", "http://" + front.h1 + "/"}},
		{"body", []string{"-B", "-s", "8192", "-x", "8", "-i", "1", "-u", "http://" + front.h1 + "/"}},
		{"read", []string{"-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-u", "http://" + front.h1 + "/?bytes=67108864"}},
	} {
		closed, last, err := slowAttack(ctx, e, front.h1, attack.args)
		if err != nil {
			stop()
			return result{}, err
		}
		cell := fmt.Sprintf("%d of %d closed", closed, slowConns)
		if closed > 0 {
			cell += fmt.Sprintf(", the last after %.1f s", last.Seconds())
		}
		r.Cells = append(r.Cells, cell)
		if closed < slowConns || last > (slowDeadline+slowGrace)*time.Second {
			r.Failures = append(r.Failures, attack.name+": "+cell)
			r.Missed = "slow " + attack.name
		}
	}
	stop()
	r.Cells = append(r.Cells, fmt.Sprintf("%d/%d", good.ok, good.all), good.slowest.Round(time.Millisecond).String())
	if good.ok < good.all {
		r.Failures = append(r.Failures, fmt.Sprintf("good client: %d of %d calls not answered", good.all-good.ok, good.all))
		r.Missed = "slow: the good client"
	}
	return r, nil
}

// slowAttack returns how many connections the subject let go of, and after how many seconds the last of them. It looks at
// the kernel's table and not at what the client sees: a socket with an answer that nobody reads outlives its owner there.
func slowAttack(ctx context.Context, e *env, address string, args []string) (closed int, last time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, (slowTest+30)*time.Second)
	defer cancel()
	args = append(args, "-c", strconv.Itoa(slowConns), "-r", strconv.Itoa(slowConns), "-l", strconv.Itoa(slowTest), "-p", "3", "-v", "0")
	p, err := startProcess(filepath.Join(e.work, "slowhttptest.log"), append([]string{"slowhttptest"}, args...))
	if err != nil {
		return 0, 0, err
	}
	defer p.stop()
	begin, most, least := time.Now(), 0, slowConns
	for time.Since(begin) < (slowTest-1)*time.Second && ctx.Err() == nil {
		time.Sleep(200 * time.Millisecond)
		n, err := held(address)
		if err != nil {
			return 0, 0, err
		}
		most = max(most, n)
		if since := time.Since(begin); since > 2*time.Second && n < least { // all have come by then
			least, last = n, since
		}
		if least == 0 {
			break
		}
	}
	if most < slowConns/2 {
		return 0, 0, fmt.Errorf("slowhttptest: only %d connections were open at once: %s", most, p.tail())
	}
	return slowConns - least, last, ctx.Err()
}

// held counts the connections at the address that a process still has, less those of goodClient.
func held(address string) (n int, err error) {
	data, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	number, _ := strconv.Atoi(port)
	suffix := fmt.Sprintf(":%04X", number)
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line) // sl local remote state queues timer retransmits uid timeout inode
		const listening, goodHost = "0A", "0200007F:"
		if len(f) > 9 && strings.HasSuffix(f[1], suffix) && f[3] != listening && f[9] != "0" && !strings.HasPrefix(f[2], goodHost) {
			n++
		}
	}
	return n, nil
}

// goodClient calls ten times a second and counts.
type goodClient struct {
	url     string
	ok, all int
	slowest time.Duration
}

// begin starts the calls; the function returned ends them and waits.
func (g *goodClient) begin(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}} // where held tells it from the others
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: dialer.DialContext}}
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			begin := time.Now()
			ok := get(ctx, client, g.url)
			if ctx.Err() != nil {
				return
			}
			g.all++
			if ok {
				g.ok++
				g.slowest = max(g.slowest, time.Since(begin))
			}
		}
	}()
	return func() { cancel(); <-done; client.CloseIdleConnections() }
}

func get(ctx context.Context, c *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := c.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}
