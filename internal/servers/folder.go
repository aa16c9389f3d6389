package servers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Folder is a new folder for temporary files that does not outlive its program: Remove takes it away, or, after a program that
// was killed, the next [NewFolder] with the same TMPDIR. It is locked for as long as a process has it open, which the kernel sees to
// by itself, so that no number of a process that was given to another one can be mistaken. Its methods are not safe for
// concurrent use.
type Folder struct {
	path string
	lock *os.File // the folder itself, locked
}

const (
	folderPrefix = "longpole-"
	folderMark   = ".longpole-folder" // the file that says that a folder is one of these
)

// NewFolder makes a folder in TMPDIR whose name begins with longpole- and name, open to nobody but its user, and takes those away
// that dead programs have left. ErrMissing is never its error.
func NewFolder(name string) (*Folder, error) {
	sweep(os.TempDir())
	path, err := os.MkdirTemp("", folderPrefix+name+"-")
	if err != nil {
		return nil, fmt.Errorf("servers: %w", err)
	}
	lock, err := lockFolder(path)
	if err == nil { // the mark comes after the lock: nobody takes a marked folder for one that is left
		err = os.WriteFile(filepath.Join(path, folderMark), nil, 0o600)
	}
	if err != nil {
		if lock != nil {
			err = errors.Join(err, lock.Close())
		}
		return nil, errors.Join(fmt.Errorf("servers: %w", err), os.RemoveAll(path))
	}
	return &Folder{path: path, lock: lock}, nil
}

// Path is where it is.
func (f *Folder) Path() string { return f.path }

// Remove takes it away with all that is in it. Other processes that were given it have ended before.
func (f *Folder) Remove() error {
	err := os.RemoveAll(f.path)
	if err = errors.Join(err, f.lock.Close()); err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	return nil
}

// lockFolder opens a folder and locks it, unless somebody has; it follows no link.
func lockFolder(path string) (*os.File, error) {
	f, err := os.OpenFile(path, syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(&os.PathError{Op: "lock", Path: path, Err: err}, f.Close())
	}
	return f, nil
}

// sweep takes away what dead programs have left within a folder. What cannot be taken away, as another user's, stays.
func sweep(temp string) {
	marks, _ := filepath.Glob(filepath.Join(temp, folderPrefix+"*", folderMark)) // a name that is a pattern itself finds nothing
	for _, mark := range marks {
		path := filepath.Dir(mark)
		lock, err := lockFolder(path)
		if err != nil {
			continue // somebody lives there
		}
		_ = os.RemoveAll(path) // it is tried again at the next start
		_ = lock.Close()       // it was only read
	}
}
