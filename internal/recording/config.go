package recording

import (
	"fmt"
	"strings"
	"time"

	"github.com/longpole/longpole/setting"
)

// Files is where recordings are kept, and how much of them. At most MaxFiles x MaxFileBytes of disk are used, and a frame.
type Files struct {
	Dir          string        `yaml:"dir"`            // made when it is missing; mandatory
	MaxFileBytes int64         `yaml:"max_file_bytes"` // of one file, compressed; 64KiB..16GiB; default 64MiB
	MaxAge       time.Duration `yaml:"max_age"`        // from the beginning of a file to that of the next; default 1h
	MaxFiles     int           `yaml:"max_files"`      // the oldest beyond are removed; 1..10000; default 8
}

// WithDefaults fills what is zero.
func (f Files) WithDefaults() Files {
	if f.MaxFileBytes == 0 {
		f.MaxFileBytes = 64 << 20
	}
	if f.MaxAge == 0 {
		f.MaxAge = time.Hour
	}
	if f.MaxFiles == 0 {
		f.MaxFiles = 8
	}
	return f
}

// Validate returns every fault of f, joined; each is a *setting.Error.
func (f Files) Validate() error {
	var faults setting.Faults
	faults.Check(f.Dir != "", "dir", f.Dir, "a directory")
	faults.Check(f.MaxFileBytes == 0 || f.MaxFileBytes >= 64<<10 && f.MaxFileBytes <= 16<<30, "max_file_bytes", f.MaxFileBytes, "64KiB..16GiB")
	faults.Check(f.MaxAge >= 0, "max_age", f.MaxAge, "a duration that is not negative")
	faults.Check(f.MaxFiles >= 0 && f.MaxFiles <= 10_000, "max_files", f.MaxFiles, "1..10000")
	return faults.Err()
}

// Validate returns every fault of s, joined; each is a *setting.Error.
func (s Scrub) Validate() error {
	var f setting.Faults
	f.Check(len(s.Headers) <= maxFields, "headers", len(s.Headers), fmt.Sprintf("at most %d", maxFields))
	for i, name := range s.Headers {
		f.Check(name != "" && !strings.ContainsAny(name, " \t\r\n:*"), fmt.Sprintf("headers[%d]", i), name, "the name of a header")
		f.Check(!Credential(name), fmt.Sprintf("headers[%d]", i), name, "a header without credentials: those are never recorded")
	}
	f.Check(s.BodyBytes >= 0 && s.BodyBytes <= MaxBodyBytes, "body_bytes", s.BodyBytes, "0..1MiB")
	return f.Err()
}
