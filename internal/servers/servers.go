package servers

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrMissing is wrapped by the error of a server that is not installed here. Its text names the package.
var ErrMissing = errors.New("servers: not installed")

// errTaken says that somebody else has the port that a server was given.
var errTaken = errors.New("servers: the port is taken")

// Server is one server that runs. Its methods are safe for concurrent use, except Stop, which comes once and last.
type Server struct {
	plan    plan
	address string
	folder  *Folder
	guard   *exec.Cmd

	mu    sync.Mutex     // one order at a time
	pipe  io.WriteCloser // the guard's standard input
	told  *bufio.Reader  // its standard output
	pid   atomic.Int64
	quiet int64 // bytes of its log that came before this life of it
}

// Address is where the server listens, as 127.0.0.1:5432.
func (s *Server) Address() string { return s.address }

// PID is the process of the server, or its first one where it has several.
func (s *Server) PID() int { return int(s.pid.Load()) }

// Log is the file that takes what the server prints. It goes with the server.
func (s *Server) Log() string { return filepath.Join(s.folder.Path(), "log") }

// Kill ends the server at once, as a crash does, and returns when its first process is gone. What it has on disk stays.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.order("kill"); err != nil {
		return fmt.Errorf("servers: %s cannot be killed: %w", s.plan.title, err)
	}
	return nil
}

// Restart starts a server that was killed again, with what it had on disk and at the same address, and returns when it takes
// connections; within a minute, or before ctx ends. It tries again and again, because PostgreSQL refuses to begin while processes of its
// last life are still there.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		if log, err := os.Stat(s.Log()); err == nil {
			s.quiet = log.Size()
		}
		line, err := s.order("start")
		if err == nil {
			err = s.born(line)
		}
		if err != nil {
			return fmt.Errorf("servers: %s cannot be started again: %w", s.plan.title, err)
		}
		if err = s.await(ctx); err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(againTime):
		case <-ctx.Done():
		}
	}
}

// order has the guard do something and returns its answer. s.mu is held.
func (s *Server) order(word string) (string, error) {
	if _, err := io.WriteString(s.pipe, word+"\n"); err != nil {
		return "", err
	}
	line, err := s.told.ReadString('\n')
	return strings.TrimSpace(line), err
}

// born takes note of the process that a guard tells.
func (s *Server) born(line string) error {
	pid, err := strconv.ParseInt(line, 10, 64)
	s.pid.Store(pid)
	return err
}

// Stop ends the server with all its processes and removes its folder. It returns when that is done.
func (s *Server) Stop() error {
	_ = s.pipe.Close() // the guard is told by that, or is gone already, and then Wait says so
	err := s.guard.Wait()
	if left := s.folder.Remove(); left != nil { // the guard cannot, where its user may not write next to it
		err = left
	} else if x, ended := errors.AsType[*exec.ExitError](err); ended && x.Exited() {
		err = nil // its rm could not
	}
	if err != nil {
		return fmt.Errorf("servers: %s: %w", s.address, err)
	}
	return nil
}

// plan is what is to be started.
type plan struct {
	title   string // PostgreSQL, as people call it
	as      *syscall.SysProcAttr
	signal  string // that ends it at once, without the word SIG
	prepare string // shell commands that come before the server, with $folder and what environment tells; "" = none
	command func(folder, port string) []string
	ready   func(ctx context.Context, address string) bool
	says    string // in its log once it is ready: whoever else answers at the address does not write there

	environment func(port string) []string // nil = ours
}

// The bounds of a start.
const (
	startTime = time.Minute // for a machine that is busy with something else
	lookTime  = 20 * time.Millisecond
	againTime = 200 * time.Millisecond
	tries     = 5 // with another port each
)

// start runs a plan on a free port, on another one where somebody else was quicker to take it.
func start(ctx context.Context, p plan) (s *Server, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for range tries {
		if s, err = p.once(ctx); !errors.Is(err, errTaken) {
			return s, err
		}
	}
	return nil, err
}

// guardScript runs the commands $3 and then a server ($4...) until standard input ends, then ends it by the signal $1 and removes
// the folder $2. It prints the server's process ID, or failed after commands that did. A line of standard input has it
// kill the server, or start it again. It reads by a command, because a shell takes note of a server that is gone while it waits for a command,
// and because a signal to them all ends that command, and with it everything. The last signal to the server is repeated, for a server that
// has just begun does not heed it yet. All of them have the locked folder open, as descriptor 3.
const guardScript = `PATH=$PATH:/usr/bin:/bin
signal=$1 folder=$2 prepare=$3; shift 3
trap : HUP INT TERM PIPE
server=
serve() {
	"$@" </dev/null >>"$folder/log" 2>&1 &
	server=$!
}
if { eval "$prepare"; } </dev/null >>"$folder/log" 2>&1; then serve "$@"; fi
echo ${server:-failed}
while head -n 1 >"$folder/order" && read -r order <"$folder/order"; do
	if test -n "$server"; then kill -s KILL $server; wait $server; fi
	server=
	if test $order = start; then serve "$@"; fi
	echo ${server:-killed}
done
exec >/dev/null 2>&1
while test -n "$server" && kill -s "$signal" $server; do sleep 0.05 || sleep 1; done
wait
cd /
rm -rf "$folder"
`

func (p *plan) once(ctx context.Context) (*Server, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(address)
	folder, err := p.newFolder()
	if err != nil {
		return nil, err
	}
	s := &Server{plan: *p, address: address, folder: folder}
	if err = s.run(ctx, port); err != nil {
		return nil, err
	}
	if err = s.await(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// newFolder makes a folder of the user that the server will be.
func (p *plan) newFolder() (*Folder, error) {
	folder, err := NewFolder(strings.ToLower(p.title))
	if err != nil {
		return nil, err
	}
	if p.as.Credential != nil {
		if err = os.Chown(folder.Path(), int(p.as.Credential.Uid), int(p.as.Credential.Gid)); err != nil {
			return nil, errors.Join(fmt.Errorf("servers: %w", err), folder.Remove())
		}
	}
	return folder, nil
}

// run starts the guard, and through it the server. The guard has its own group of processes, so that an interrupt that is
// typed goes to whoever started it alone; and it is not bound to a context, because it must be the last to go.
// After an error nothing is left.
func (s *Server) run(ctx context.Context, port string) error {
	p, folder := &s.plan, s.folder.Path()
	args := append([]string{"-c", guardScript, "longpole-guard", p.signal, folder, p.prepare}, p.command(folder, port)...)
	s.guard = exec.Command("/bin/sh", args...) //nolint:noctx // see above
	s.guard.SysProcAttr, s.guard.Dir, s.guard.ExtraFiles = p.as, folder, []*os.File{s.folder.lock}
	s.guard.SysProcAttr.Setpgid = true
	if p.environment != nil {
		s.guard.Env = append(os.Environ(), p.environment(port)...)
	}
	if err := s.begin(); err != nil {
		return errors.Join(err, s.folder.Remove())
	}
	hurry := context.AfterFunc(ctx, func() { _ = syscall.Kill(-s.guard.Process.Pid, syscall.SIGTERM) }) // it ends what prepares the server
	line, err := s.told.ReadString('\n')
	hurry()
	line = strings.TrimSpace(line)
	switch {
	case err == nil && line == "failed":
		err = cmp.Or(context.Cause(ctx), fmt.Errorf("it could not be prepared:\n%s", s.tail()))
	case err == nil:
		err = s.born(line)
	default:
		err = fmt.Errorf("its guard did not tell the process: %w", err)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("servers: %s: %w", p.title, err), s.Stop())
	}
	return nil
}

// begin starts the guard with a pipe to it and one from it.
func (s *Server) begin() error {
	in, err := s.guard.StdinPipe()
	if err != nil {
		return fmt.Errorf("servers: %s: %w", s.plan.title, err)
	}
	out, err := s.guard.StdoutPipe()
	if err != nil {
		return fmt.Errorf("servers: %s: %w", s.plan.title, err)
	}
	if err = s.guard.Start(); errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("servers: %s: the user that it runs as may not enter %s; set TMPDIR to a folder that everybody may enter", s.plan.title, filepath.Dir(s.folder.Path()))
	} else if err != nil {
		return fmt.Errorf("servers: %s: %w", s.plan.title, err)
	}
	s.pipe, s.told = in, bufio.NewReader(out)
	return nil
}

// await waits until the server takes connections, or is gone.
func (s *Server) await(ctx context.Context) error {
	p := &s.plan
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	for !s.said(p.says) || !p.ready(ctx, s.address) {
		if s.gone() {
			log := s.tail()
			if strings.Contains(strings.ToLower(log), "address already in use") {
				return errTaken
			}
			return fmt.Errorf("servers: %s ended as soon as it was started:\n%s", p.title, log)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("servers: %s does not answer at %s: %w\n%s", p.title, s.address, context.Cause(ctx), s.tail())
		}
	}
	return nil
}

// said reports whether the server has printed text since it was started last.
func (s *Server) said(text string) bool {
	data, err := os.ReadFile(s.Log())
	return err == nil && bytes.Contains(data[min(s.quiet, int64(len(data))):], []byte(text))
}

// gone reports whether the server's process has ended.
func (s *Server) gone() bool { return errors.Is(syscall.Kill(s.PID(), 0), syscall.ESRCH) }

// maxTail bounds what an error shows of a server's log.
const maxTail = 2 << 10

// tail is the end of what the server printed.
func (s *Server) tail() string {
	data, err := os.ReadFile(s.Log())
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(data[max(0, len(data)-maxTail):]))
}

// The ports that servers get. They lie below those that systems give to whoever asks for any (32768 and more on Linux), so
// that no connection takes a port between its being found free and the server's asking for it.
const (
	firstPort = 20000
	lastPort  = 32000
)

// freeAddress is one on loopback on which nobody listens.
func freeAddress(ctx context.Context) (string, error) {
	l, err := Listen(ctx)
	if err != nil {
		return "", err
	}
	if err = l.Close(); err != nil {
		return "", fmt.Errorf("servers: %w", err)
	}
	return l.Addr().String(), nil
}

// Listen opens a listener on a free port of loopback between 20000 and 32000: a port that no outgoing connection gets, so that
// who closes the listener can count on opening it again.
func Listen(ctx context.Context) (l net.Listener, err error) {
	var lc net.ListenConfig
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+rand.IntN(lastPort-firstPort)))
		if l, err = lc.Listen(ctx, "tcp", address); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("servers: no free port: %w", err)
	}
	return l, nil
}

// greets reports whether whoever listens at an address sends what begins with want after it was sent hello.
func greets(ctx context.Context, address, hello, want string) bool {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }() // it only asked
	deadline, _ := ctx.Deadline()
	if conn.SetDeadline(deadline) != nil {
		return false
	}
	if _, err = io.WriteString(conn, hello); err != nil {
		return false
	}
	answer := make([]byte, len(want))
	_, err = io.ReadFull(conn, answer)
	return err == nil && string(answer) == want
}

// find is a program by its name: on PATH, or where Debian keeps those of the administrator.
func find(name string) (string, bool) {
	for _, try := range []string{name, filepath.Join("/usr/sbin", name), filepath.Join("/usr/local/sbin", name)} {
		if path, err := exec.LookPath(try); err == nil {
			return path, true
		}
	}
	return "", false
}

// missing is the error of a server that is not here.
func missing(title, pack string) error {
	return fmt.Errorf("%w: %s; install the package %s", ErrMissing, title, pack)
}
