package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/longpole/longpole/setting"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWriter(t *testing.T, f Files, s Scrub) *Writer {
	t.Helper()
	if f.Dir == "" {
		f.Dir = t.TempDir()
	}
	w, err := NewWriter(f, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func write(t *testing.T, w *Writer, at time.Duration, e Entry) {
	t.Helper()
	if e.Method == "" {
		e.Method, e.Path = "GET", "/x"
	}
	if err := w.Write(t0.Add(at), e); err != nil {
		t.Fatal(err)
	}
}

func readAll(t *testing.T, data []byte) (all []Entry, cut bool) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, r.Cut()
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
}

func only(t *testing.T, w *Writer) []byte {
	t.Helper()
	all, err := List(w.files.Dir)
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	data, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	w := newWriter(t, Files{}, Scrub{BodyBytes: 100})
	first := Entry{
		Route: "orders", Method: "POST", Host: "shop.example", Path: "/orders/1%2F2", Query: "page=2&q=a%20b", Body: []byte("hello\x00"),
		Header: map[string][]string{"Content-Type": {"text/plain"}, "Accept": {"a", "b"}}, Status: 201, Latency: 5 * time.Millisecond,
	}
	write(t, w, 0, first)
	write(t, w, 1250*time.Millisecond, Entry{Method: "GET", Path: "/"})
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	got, cut := readAll(t, only(t, w))
	second := Entry{At: 1250 * time.Millisecond, Method: "GET", Path: "/"}
	if diff := cmp.Diff([]Entry{first, second}, got); diff != "" || cut {
		t.Errorf("cut %t:\n%s", cut, diff)
	}
	if err := w.Write(t0, first); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestAPlainFileIsReadToo(t *testing.T) {
	text := `{"format":"longpole-recording","version":1,"start":"2026-01-01T00:00:00Z"}` + "\n\n" + `{"at":5,"method":"GET","path":"/a"}` + "\n"
	if got, cut := readAll(t, []byte(text)); len(got) != 1 || got[0].Path != "/a" || cut {
		t.Errorf("%+v", got)
	}
}

// Whatever the byte at which a file is cut off: all of its whole frames are read, and nothing else.
func TestAFileThatWasCutOffIsReadableUpToItsLastFrame(t *testing.T) {
	w := newWriter(t, Files{}, Scrub{})
	var ends []int
	for i := range 5 {
		write(t, w, time.Duration(i), Entry{Method: "GET", Path: fmt.Sprintf("/%d", i)})
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, len(only(t, w)))
	}
	whole := only(t, w)
	for n := range len(whole) {
		r, err := NewReader(bytes.NewReader(whole[:n]))
		if err != nil {
			if !errors.Is(err, ErrFormat) || n > ends[0] {
				t.Fatalf("at %d: %v", n, err)
			}
			continue
		}
		got := 0
		for {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || e.Path != fmt.Sprintf("/%d", got) {
				t.Fatalf("at %d: %+v, %v", n, e, err)
			}
			got++
		}
		want := 0
		for _, end := range ends {
			if n >= end {
				want++
			}
		}
		if got < want || got > want+1 {
			t.Fatalf("at %d: %d entries; want %d", n, got, want)
		}
		r.Close()
	}
}

func TestFilesAreEndedBySizeAndAgeAndTheOldestGo(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other.txt")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, Files{Dir: dir, MaxAge: time.Minute, MaxFiles: 3, MaxFileBytes: 64 << 10}, Scrub{BodyBytes: MaxBodyBytes})
	for i := range 10 {
		write(t, w, time.Duration(i)*time.Minute, Entry{})
	}
	all, err := List(dir)
	if err != nil || len(all) != 3 || !strings.Contains(all[2], "T000900") {
		t.Fatal(all, err)
	}
	noise := make([]byte, 50_000)
	s := newScrubber(Scrub{}, []byte("k"))
	for i := 0; i < len(noise); i += 32 {
		copy(noise[i:], s.sum(fmt.Sprint(i)))
	}
	for range 40 {
		write(t, w, 20*time.Minute, Entry{Method: "POST", Path: "/", Body: noise})
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	all, _ = List(dir)
	var bytes int64
	for _, name := range all {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		bytes += info.Size()
	}
	if len(all) != 3 || bytes > 3*(64<<10+frameBytes) {
		t.Errorf("%d files of %d bytes", len(all), bytes)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error("a file of somebody else is gone")
	}
}

func TestAFullDiskIsAnErrorAndNotTheEnd(t *testing.T) {
	w := newWriter(t, Files{}, Scrub{})
	write(t, w, 0, Entry{})
	_ = w.out.Close() // every write fails from now on
	if err := w.Flush(); err == nil {
		t.Fatal("the error was not told")
	}
	write(t, w, time.Second, Entry{Method: "GET", Path: "/later"})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	all, _ := List(w.files.Dir)
	data, _ := os.ReadFile(all[len(all)-1])
	if got, _ := readAll(t, data); len(all) != 2 || len(got) != 1 || got[0].Path != "/later" {
		t.Errorf("%v, %+v", all, got)
	}
}

func TestNoCredentialIsWritten(t *testing.T) {
	w := newWriter(t, Files{}, Scrub{Headers: []string{"Accept", "Authorization", "Cookie", "X-My-Token", "x-forwarded-for"}, HashQuery: []string{"user"}, HashIDs: true})
	write(t, w, 0, Entry{
		Method: "POST", Path: "/u/8013/550e8400-e29b-41d4-a716-446655440000/eve@example.org/list", Body: []byte("hunter2"),
		Query:  "user=alice&access_token=hunter2&Sig=hunter2&code=hunter2&page=2&%61pi_key=hunter2&4111111111111111&page=2;token=hunter2;x&token=a;hunter2",
		Header: map[string][]string{"Accept": {"a/b"}, "Authorization": {"Basic hunter2"}, "Cookie": {"sid=hunter2"}, "X-My-Token": {"hunter2"}, "X-Forwarded-For": {"192.0.2.7"}, "Other": {"hunter2"}},
	})
	_ = w.Close()
	data := only(t, w)
	got, _ := readAll(t, data)
	d, _ := zstd.NewReader(bytes.NewReader(data))
	defer d.Close()
	text, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"hunter2", "alice", "8013", "550e8400", "eve", "192.0.2.7", "4111"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("%s was written: %s", secret, text)
		}
	}
	e := got[0]
	if len(e.Header) != 1 || e.Header["Accept"][0] != "a/b" || !strings.Contains(e.Query, "page=2") || !e.Clipped || e.Body != nil || !strings.HasSuffix(e.Path, "/list") || !strings.HasPrefix(e.Path, "/u/") {
		t.Errorf("%+v", e)
	}
}

func TestEqualValuesStayEqualWithinAFileOnly(t *testing.T) {
	a, b := newScrubber(Scrub{HashQuery: []string{"*"}}, []byte("one")), newScrubber(Scrub{HashQuery: []string{"*"}}, []byte("two"))
	if a.query("x=1") != a.query("x=1") || a.query("x=1") == a.query("x=2") || a.query("x=1") == b.query("x=1") {
		t.Errorf("%s %s %s", a.query("x=1"), a.query("x=2"), b.query("x=1"))
	}
}

func TestWhatLooksLikeAnIdentifier(t *testing.T) {
	for s, want := range map[string]bool{
		"8013": true, "7": true, "550e8400-e29b-41d4-a716-446655440000": true, "deadbeef0123": true, "a@b": true, "a%40b": true, "2024-01-02": true,
		"01HQZX3J9GY7W8K2M5N6P4R0ST": true, "orders": false, "v1": false, "": false, "api": false, "face": false, "page-2": false, "index.html": false, "list-of-2024": false,
		"product-list-2024": true, // better one too many than one too few
	} {
		if got := identifier(s); got != want {
			t.Errorf("%q: %t", s, got)
		}
	}
}

func TestPseudonymsKeepTheShape(t *testing.T) {
	s := newScrubber(Scrub{}, []byte("k"))
	shape := func(text string) string {
		return strings.Map(func(r rune) rune {
			switch {
			case r >= '0' && r <= '9':
				return '0'
			case r >= 'a' && r <= 'z':
				return 'a'
			case r >= 'A' && r <= 'Z':
				return 'A'
			}
			return r
		}, text)
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-zA-Z0-9_%@.-]{1,80}`).Draw(t, "text")
		got := s.alike(text)
		if shape(got) != shape(text) || got != s.alike(text) {
			t.Fatalf("%q became %q", text, got)
		}
	})
	if got := s.alike("deadbeef0123"); strings.Trim(got, "0123456789abcdef") != "" {
		t.Errorf("hex became %q", got)
	}
}

func TestFaultsOfTheSettings(t *testing.T) {
	if n := len(setting.List(Files{MaxFileBytes: 1, MaxAge: -1, MaxFiles: -1}.Validate())); n != 4 {
		t.Errorf("%d faults of Files", n)
	}
	if n := len(setting.List(Scrub{Headers: []string{"", "Cookie"}, BodyBytes: 2 << 20}.Validate())); n != 3 {
		t.Errorf("%d faults of Scrub", n)
	}
	if (Files{Dir: "x"}).WithDefaults().Validate() != nil || (Scrub{}).Validate() != nil {
		t.Error("the defaults are refused")
	}
}

func TestWhatIsNoRecordingIsRefused(t *testing.T) {
	for _, text := range []string{"", "x", "{}\n", `{"format":"longpole-recording","version":2}` + "\n", strings.Repeat("x", 3<<20)} {
		if _, err := NewReader(strings.NewReader(text)); !errors.Is(err, ErrFormat) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	first := `{"format":"longpole-recording","version":1,"start":"2026-01-01T00:00:00Z"}` + "\n"
	f.Add([]byte(first + `{"at":5,"method":"GET","path":"/a"}` + "\n"))
	f.Add([]byte(first + `{"at":-5}` + "\nx"))
	e, _ := zstd.NewWriter(nil)
	f.Add(e.EncodeAll([]byte(first+`{"at":5,"method":"GET","path":"/a"}`+"\n"), nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := NewReader(bytes.NewReader(data))
		if err != nil {
			return
		}
		defer r.Close()
		for range 1000 {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				if !errors.Is(err, ErrEntry) {
					t.Fatal(err)
				}
				continue
			}
			if e.At < 0 || e.Path[0] != '/' {
				t.Fatalf("%+v", e)
			}
			if _, err := json.Marshal(e); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzScrub(f *testing.F) {
	f.Add("a=1&token=2&&=&c", "/a/1/b")
	f.Fuzz(func(t *testing.T, query, path string) {
		s := newScrubber(Scrub{HashIDs: true, HashQuery: []string{"*"}}, []byte("k"))
		if got := s.query(query); strings.Count(got, "&") != strings.Count(query, "&") {
			t.Errorf("%q became %q", query, got)
		}
		if got := s.path(path); len(got) != len(path) {
			t.Errorf("%q became %q", path, got)
		}
	})
}
