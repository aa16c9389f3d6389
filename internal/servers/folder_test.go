package servers

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestFoldersOfTheDeadAreTakenAwayAndNoOthers(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	dead, err := NewFolder("lab")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dead.Path(), "data"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), "/bin/cat") // has the folder open, as a server has that outlives its program
	child.ExtraFiles = []*os.File{dead.lock}
	hold, err := child.StdinPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.lock.Close() // as the kernel does for a program that was killed
	foreign := filepath.Join(temp, "longpole-notes")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	if err := os.WriteFile(filepath.Join(elsewhere, folderMark), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(temp, "longpole-link")); err != nil {
		t.Fatal(err)
	}
	there := func(path string) bool {
		_, err := os.Stat(path)
		return !errors.Is(err, os.ErrNotExist)
	}
	living, err := NewFolder("lab")
	if err != nil {
		t.Fatal(err)
	}
	if !there(dead.Path()) {
		t.Error("a folder is taken away from a process that lives")
	}
	_ = hold.Close()
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	second, err := NewFolder("lab")
	if err != nil {
		t.Fatal(err)
	}
	if there(dead.Path()) {
		t.Error("the folder of a program that is gone stays")
	}
	if !there(living.Path()) || !there(foreign) || !there(elsewhere) {
		t.Error("a folder goes that is in use, or nobody of ours made")
	}
	for _, f := range []*Folder{living, second} {
		if err := f.Remove(); err != nil || there(f.Path()) {
			t.Errorf("a folder that is removed stays: %v", err)
		}
	}
}
