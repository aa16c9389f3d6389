package discover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/setting"
)

// watcher reads a file when it changes.
type watcher struct {
	cfg File
}

func (w *watcher) run(ctx context.Context, tell report) {
	last := ""
	for {
		if now := stampOf(w.cfg.Path); now != last {
			last = now
			tell(readFile(w.cfg.Path))
		}
		if !sleep(ctx, spread(w.cfg.Interval)) {
			return
		}
	}
}

// stampOf changes when the file at path may have. It is never "".
func stampOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "missing"
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}

func readFile(path string) ([]Endpoint, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errorf("%w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, conf.MaxBytes+1))
	if err != nil {
		return nil, errorf("reading %s: %w", path, err)
	}
	return decodeFile(path, data)
}

// decodeFile reads a YAML or JSON list of endpoints. A list with one fault is refused as a whole: half a list would send
// all calls to half of the endpoints.
func decodeFile(path string, data []byte) ([]Endpoint, error) {
	var list []Endpoint
	err := conf.Load(path, data, &list, func(all *[]Endpoint) error {
		var f setting.Faults
		f.Check(len(*all) <= MaxEndpoints, "", len(*all), fmt.Sprintf("at most %d endpoints", MaxEndpoints))
		seen := make(map[string]bool, len(*all))
		for i, e := range *all {
			at := fmt.Sprintf("[%d]", i)
			f.Within(at, e.Validate())
			if l, err := Locate(e.URL); err == nil {
				f.Check(!seen[l.Name], at+".url", e.URL, "an endpoint that is not listed before")
				seen[l.Name] = true
			}
		}
		return f.Err()
	})
	if err != nil {
		return nil, errors.Join(errorf("the list is refused"), err)
	}
	return list, nil
}
