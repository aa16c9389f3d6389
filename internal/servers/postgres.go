package servers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// PostgresOptions are what a server of PostgreSQL should have. The zero value is ready to use.
type PostgresOptions struct {
	Settings   string   // lines of postgresql.conf, which come last and so count
	Extensions []string // that must be installable, as hypopg; those that are not known to Debian as packages of their own come with postgresql-contrib
}

// postgresSettings make it quick: nothing of it is kept. Statements and their reading times are counted, as who looks for
// evidence wants it.
const postgresSettings = `
listen_addresses = '127.0.0.1'
port = %s
unix_socket_directories = ''
fsync = off
synchronous_commit = off
full_page_writes = off
jit = off
track_io_timing = on
max_parallel_workers_per_gather = 0
%s
`

// initdb makes the folder of a server. Its own last words are about how to start it, and nobody wants to know.
const initdb = `"$bin/initdb" -D "$folder/data" -U ` + superuser + ` -A trust --no-sync --locale=C.UTF-8 -E UTF8 >/dev/null &&
printf '%s\n' "$settings" >>"$folder/data/postgresql.conf"`

// superuser owns the databases of a server that this package starts.
const superuser = "postgres"

// Postgres starts a PostgreSQL server of the newest version that is installed with all that o asks for, from an empty folder;
// that takes about two seconds. Its superuser is postgres, and everybody on this machine is trusted. ErrMissing = there is
// none here.
func Postgres(ctx context.Context, o PostgresOptions) (*Server, error) {
	bin, err := postgresHome(o.Extensions)
	if err != nil {
		return nil, err
	}
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	data := func(folder string) string { return filepath.Join(folder, "data") }
	return start(ctx, plan{
		title: "PostgreSQL", as: as, signal: "QUIT", says: "ready to accept connections",
		prepare: initdb, environment: func(port string) []string {
			return []string{"bin=" + bin, "settings=" + fmt.Sprintf(postgresSettings, port, o.Settings)}
		},
		command: func(folder, _ string) []string { return []string{filepath.Join(bin, "postgres"), "-D", data(folder)} },
		ready: func(ctx context.Context, address string) bool {
			host, port, _ := strings.Cut(address, ":")
			asked := exec.CommandContext(ctx, filepath.Join(bin, "pg_isready"), "-q", "-h", host, "-p", port, "-d", superuser, "-U", superuser)
			return asked.Run() == nil
		},
	})
}

// DSN is how to connect to a database of a PostgreSQL server as its superuser: "postgres" is there from the beginning.
func (s *Server) DSN(database string) string {
	return "postgres://" + superuser + "@" + s.address + "/" + database + "?sslmode=disable"
}

// postgresHome is the folder with the programs of the newest version that has the extensions.
func postgresHome(extensions []string) (string, error) {
	list, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is right
	version := func(bin string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin))) // 0 for what is none
		return n
	}
	slices.SortFunc(list, func(a, b string) int { return version(b) - version(a) })
	if path, ok := find("postgres"); ok { // another system's
		list = append(list, filepath.Dir(path))
	}
	absent := "" // of the newest
	for _, bin := range list {
		if _, err := os.Stat(filepath.Join(bin, "initdb")); err != nil {
			continue
		}
		share := fmt.Sprintf("/usr/share/postgresql/%d/extension", version(bin))
		i := slices.IndexFunc(extensions, func(x string) bool {
			_, err := os.Stat(filepath.Join(share, x+".control"))
			return err != nil
		})
		if i < 0 {
			return bin, nil
		}
		if absent == "" {
			absent = fmt.Sprintf("postgresql-%d-%s (or postgresql-contrib)", version(bin), extensions[i])
		}
	}
	if absent != "" {
		return "", missing("an extension of PostgreSQL", absent)
	}
	return "", missing("PostgreSQL", "postgresql")
}

// unprivileged is who PostgreSQL runs as: us, but never root.
func unprivileged() (*syscall.SysProcAttr, error) {
	if os.Geteuid() != 0 {
		return &syscall.SysProcAttr{}, nil
	}
	for _, name := range []string{superuser, "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
		}
	}
	return nil, missing("the user postgres, which PostgreSQL needs as it refuses to be run by root", "postgresql")
}
