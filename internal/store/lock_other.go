//go:build !unix

package store

import (
	"fmt"
	"os"
)

// lockFile opens the file only: two processes on one folder wait for each other in SQLite.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return f, nil
}
