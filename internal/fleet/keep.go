package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/longpole/longpole/internal/slo"
)

// maxBudgetFile bounds what is read: 256 objectives of 90 days have no more.
const maxBudgetFile = 64 << 20

// ErrBudgets is what LoadBudgets and SaveBudgets wrap when the file is the trouble.
var ErrBudgets = errors.New("fleet: file of error budgets")

// LoadBudgets restores what SaveBudgets kept. A file that is not there is no error: it is the first start. What could not
// be restored begins anew; the error says what and why.
func LoadBudgets(file string, now time.Time, book *slo.Book) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBudgets, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var s slo.Snapshot
	if err := json.NewDecoder(io.LimitReader(f, maxBudgetFile)).Decode(&s); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrBudgets, file, err)
	}
	return book.Restore(now, s)
}

// SaveBudgets replaces the file by what book has counted, so that a crash leaves the old one or the new one.
func SaveBudgets(file string, now time.Time, book *slo.Book) error {
	if err := saveBudgets(file, book.Snapshot(now)); err != nil {
		return fmt.Errorf("%w: %w", ErrBudgets, err)
	}
	return nil
}

func saveBudgets(file string, s slo.Snapshot) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
