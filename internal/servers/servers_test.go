package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longpole/longpole/internal/systemtest"
)

// aloneVariable makes the test's program one that starts a server and then waits to be killed.
const aloneVariable = "LONGPOLE_TEST_START_AND_WAIT"

func TestMain(m *testing.M) {
	if which := os.Getenv(aloneVariable); which != "" {
		if which == "PostgreSQL" {
			_, err := Postgres(context.Background(), PostgresOptions{})
			fmt.Println(err)
			select {}
		}
		s, err := Redis(context.Background())
		fmt.Println(s.PID(), s.folder.Path(), err)
		select {}
	}
	goleak.VerifyTestMain(m)
}

// absent ends a test for want of a server.
func absent(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, ErrMissing) {
		systemtest.Missing(t, err.Error())
	}
}

// ended waits until a process is gone.
func ended(t *testing.T, pid int) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return
		}
	}
	t.Errorf("process %d is still there", pid)
}

// gone checks that a folder is not there.
func gone(t *testing.T, folder string) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(folder); errors.Is(err, os.ErrNotExist) {
			return
		}
	}
	t.Errorf("the folder %s is still there", folder)
}

func TestServersComeAndGoWithAllTheyHave(t *testing.T) {
	for name, start := range map[string]func(context.Context) (*Server, error){
		"PostgreSQL": func(ctx context.Context) (*Server, error) {
			return Postgres(ctx, PostgresOptions{Settings: "shared_preload_libraries = 'pg_stat_statements'", Extensions: []string{"pg_stat_statements"}})
		},
		"Redis": func(ctx context.Context) (*Server, error) { return Redis(ctx) },
		"NATS":  func(ctx context.Context) (*Server, error) { return NATS(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := start(t.Context())
			absent(t, err)
			if err != nil {
				t.Fatal(err)
			}
			all := append(children(t, s.PID()), s.PID(), s.guard.Process.Pid)
			if name == "PostgreSQL" && len(all) < 4 {
				t.Errorf("only the processes %v", all)
			}
			if log, err := os.ReadFile(s.Log()); err != nil || len(log) == 0 {
				t.Errorf("no log: %v", err)
			}
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
			for _, pid := range all {
				ended(t, pid)
			}
			gone(t, s.folder.Path())
		})
	}
}

// children are the processes that another one started.
func children(t *testing.T, pid int) (all []int) {
	t.Helper()
	list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range list {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for word := range strings.FieldsSeq(string(data)) {
			n, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, n)
		}
	}
	return all
}

func TestServersGoWithWhoStartedThemEvenByKill(t *testing.T) {
	if _, ok := find("redis-server"); !ok {
		absent(t, missing("Redis", "redis-server"))
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), aloneVariable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var folder, fault string
	if _, err := fmt.Fscan(out, &pid, &folder, &fault); err != nil || pid == 0 {
		t.Fatal(pid, folder, fault, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed, and says so
	ended(t, pid)
	gone(t, folder)
}

// ownTemp gives a test a folder for temporary files that the user postgres may write to, which those of testing are not.
func ownTemp(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "longpole-servers-test-") //nolint:usetesting // see above
	if err == nil {
		err = os.Chmod(folder, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}

// preparing waits until initdb has begun within a folder of temporary files, and returns the server's own folder.
func preparing(t *testing.T, temp string) string {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < 20*time.Second; time.Sleep(time.Millisecond) {
		if list, _ := filepath.Glob(filepath.Join(temp, "longpole-postgresql-*", "data")); len(list) > 0 {
			return filepath.Dir(list[0])
		}
	}
	t.Fatal("initdb did not begin")
	return ""
}

func TestPostgresGoesWithWhoPreparedItEvenByKill(t *testing.T) {
	if _, err := postgresHome(nil); err != nil {
		absent(t, err)
	}
	temp := ownTemp(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), aloneVariable+"=PostgreSQL", "TMPDIR="+temp)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	folder := preparing(t, temp)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed, and says so
	gone(t, folder)
}

func TestPostgresThatIsPreparedEndsWithItsContext(t *testing.T) {
	if _, err := postgresHome(nil); err != nil {
		absent(t, err)
	}
	temp := ownTemp(t)
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // ends with initdb's beginning
		defer cancel()
		preparing(t, temp)
	}()
	if _, err := Postgres(ctx, PostgresOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a start that was cancelled: %v", err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("%v stays (%v)", left, err)
	}
}

func TestPostgresSaysWhichFolderItsUserMayNotEnter(t *testing.T) {
	if _, err := postgresHome(nil); err != nil {
		absent(t, err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root runs it as another user")
	}
	temp := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temp)
	if _, err := Postgres(t.Context(), PostgresOptions{}); err == nil || !strings.Contains(err.Error(), "set TMPDIR") {
		t.Errorf("a folder that is closed: %v", err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("%v stays (%v)", left, err)
	}
}

func TestAServerIsNotTakenForAnotherAtItsPort(t *testing.T) {
	other, err := Redis(t.Context())
	absent(t, err)
	if err != nil {
		t.Fatal(err)
	}
	p := plan{title: "Redis", says: "Ready", ready: func(ctx context.Context, address string) bool { return greets(ctx, address, "PING\r\n", "+PONG") }}
	s := &Server{plan: p, address: other.Address(), folder: &Folder{path: t.TempDir()}} // our own comes up, and has said nothing yet
	s.pid.Store(int64(os.Getpid()))
	if err := os.WriteFile(s.Log(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.await(ctx); err == nil {
		t.Error("somebody else's answer counts as the server's")
	}
	if err := other.Stop(); err != nil {
		t.Error(err)
	}
}

func TestServersThatAreNotInstalledNameTheirPackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, there := find("nats-server"); !there { // Debian has it where the administrator's programs are
		if _, err := NATS(t.Context()); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "the package nats-server") {
			t.Errorf("without NATS: %v", err)
		}
	}
	if _, err := Redis(t.Context()); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "the package redis-server") {
		t.Errorf("without Redis: %v", err)
	}
	if _, err := Postgres(t.Context(), PostgresOptions{Extensions: []string{"no_such"}}); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "the package postgresql") {
		t.Errorf("without an extension of PostgreSQL: %v", err)
	}
}

func TestServersThatEndAtOnceSayWhy(t *testing.T) {
	before, _ := filepath.Glob(filepath.Join(os.TempDir(), "longpole-redis-*"))
	_, err := Redis(t.Context(), "--no-such-setting", "1")
	absent(t, err)
	if err == nil || !strings.Contains(err.Error(), "no-such-setting") {
		t.Errorf("a server that cannot read its settings: %v", err)
	}
	after, _ := filepath.Glob(filepath.Join(os.TempDir(), "longpole-redis-*"))
	if len(after) > len(before) {
		t.Errorf("folders %v stay", after)
	}
}

func TestServersThatWereKilledComeBackWhereTheyWere(t *testing.T) {
	for name, start := range map[string]func(context.Context) (*Server, error){
		"PostgreSQL": func(ctx context.Context) (*Server, error) { return Postgres(ctx, PostgresOptions{}) },
		"Redis":      func(ctx context.Context) (*Server, error) { return Redis(ctx) },
		"NATS":       func(ctx context.Context) (*Server, error) { return NATS(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := start(t.Context())
			absent(t, err)
			if err != nil {
				t.Fatal(err)
			}
			first := s.PID()
			for range 2 { // it may be dead already
				if err := s.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			if s.plan.ready(t.Context(), s.Address()) {
				t.Error("a server that was killed answers")
			}
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !s.plan.ready(t.Context(), s.Address()) || s.PID() == first {
				t.Errorf("a server that was started again does not answer, or is still process %d", first)
			}
			last := s.PID()
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
			ended(t, last)
			gone(t, s.folder.Path())
		})
	}
}

func TestServersThatStayDeadLeaveNothing(t *testing.T) {
	s, err := Redis(t.Context())
	absent(t, err)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(); err != nil {
		t.Error(err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	gone(t, s.folder.Path())
}
