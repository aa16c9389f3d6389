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
	"syscall"
	"time"
)

// ErrMissing is wrapped by the error of a server that is not installed here. Its text names the package.
var ErrMissing = errors.New("servers: not installed")

// errLeft says that the guard did not do all of its work.
var errLeft = errors.New("the folder is still there")

// errTaken says that somebody else has the port that a server was given.
var errTaken = errors.New("servers: the port is taken")

// Server is one server that runs. Its methods are safe for concurrent use, except Stop, which comes once and last.
type Server struct {
	address string
	folder  string
	pid     int
	guard   *exec.Cmd
	pipe    io.Closer // the guard's standard input
}

// Address is where the server listens, as 127.0.0.1:5432.
func (s *Server) Address() string { return s.address }

// PID is the process of the server, or its first one where it has several.
func (s *Server) PID() int { return s.pid }

// Log is the file that takes what the server prints. It goes with the server.
func (s *Server) Log() string { return filepath.Join(s.folder, "log") }

// Stop ends the server with all its processes and removes its folder. It returns when that is done.
func (s *Server) Stop() error {
	_ = s.pipe.Close() // the guard is told by that, or is gone already, and then Wait says so
	err := s.guard.Wait()
	if err == nil {
		_, err = os.Stat(s.folder)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		err = cmp.Or(err, errLeft)
	}
	return fmt.Errorf("servers: %s: its guard: %w", s.address, err)
}

// plan is what is to be started.
type plan struct {
	title   string // PostgreSQL, as people call it
	as      *syscall.SysProcAttr
	signal  string // that ends it at once, without the word SIG
	prepare func(ctx context.Context, folder string, port string) error
	command func(folder, port string) []string
	ready   func(ctx context.Context, address string) bool
}

// The bounds of a start.
const (
	startTime = time.Minute // for a machine that is busy with something else
	lookTime  = 20 * time.Millisecond
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

// guardScript runs a server ($4...) until standard input ends, then ends it by the signal $1 and removes the folder $2. It
// prints the server's process ID. A signal to itself ends the wait too: cat is in the same group of processes.
const guardScript = `PATH=$PATH:/usr/bin:/bin
signal=$1 folder=$2; shift 2
trap : HUP INT TERM
"$@" </dev/null >>"$folder/log" 2>&1 &
server=$!
echo $server
exec >/dev/null
cat
kill -s "$signal" $server 2>/dev/null
wait $server
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
	s := &Server{address: address, folder: folder}
	if p.prepare != nil {
		if err = p.prepare(ctx, folder, port); err != nil {
			return nil, errors.Join(err, os.RemoveAll(folder))
		}
	}
	if err = s.run(p, port); err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	if err = s.await(ctx, p); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// newFolder makes a folder of the user that the server will be.
func (p *plan) newFolder() (string, error) {
	folder, err := os.MkdirTemp("", "longpole-"+strings.ToLower(p.title)+"-")
	if err != nil {
		return "", fmt.Errorf("servers: %w", err)
	}
	if p.as.Credential != nil {
		if err = os.Chown(folder, int(p.as.Credential.Uid), int(p.as.Credential.Gid)); err != nil {
			return "", errors.Join(fmt.Errorf("servers: %w", err), os.Remove(folder))
		}
	}
	return folder, nil
}

// run starts the guard, and through it the server. The guard has its own group of processes, so that an interrupt that is
// typed goes to whoever started it alone; and it is not bound to a context, because it must be the last to go.
func (s *Server) run(p *plan, port string) error {
	args := append([]string{"-c", guardScript, "longpole-guard", p.signal, s.folder}, p.command(s.folder, port)...)
	s.guard = exec.Command("/bin/sh", args...) //nolint:noctx // see above
	s.guard.SysProcAttr, s.guard.Dir = p.as, s.folder
	s.guard.SysProcAttr.Setpgid = true
	pipe, err := s.guard.StdinPipe()
	if err != nil {
		return fmt.Errorf("servers: %s: %w", p.title, err)
	}
	said, err := s.guard.StdoutPipe()
	if err != nil {
		return fmt.Errorf("servers: %s: %w", p.title, err)
	}
	if err = s.guard.Start(); err != nil {
		return fmt.Errorf("servers: %s: %w", p.title, err)
	}
	s.pipe = pipe
	line, err := bufio.NewReader(said).ReadString('\n')
	if err == nil {
		s.pid, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("servers: %s: its guard did not tell the process: %w", p.title, err), s.Stop())
	}
	return nil
}

// await waits until the server takes connections, or is gone.
func (s *Server) await(ctx context.Context, p *plan) error {
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	for !p.ready(ctx, s.address) {
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
	if s.gone() {
		return errTaken // somebody else answers there
	}
	return nil
}

// gone reports whether the server's process has ended.
func (s *Server) gone() bool { return errors.Is(syscall.Kill(s.pid, 0), syscall.ESRCH) }

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
