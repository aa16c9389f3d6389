package payload

import (
	"fmt"
	"mime"
	"slices"
	"strings"

	"github.com/longpole/longpole/setting"
)

// Config is what happens to the answers of a route. The zero value does nothing.
type Config struct {
	Compress       *Compress `yaml:"compress"`         // nil = answers pass as they come
	ETag           *ETag     `yaml:"etag"`             // nil = no entity tags of ours
	MaxAnswerBytes int64     `yaml:"max_answer_bytes"` // of one answer's body, before compression; beyond it 502, or a break when the head is sent; 0 = no limit
}

// Compress is which answers are encoded, and how.
type Compress struct {
	Codings  []Coding `yaml:"codings"`   // zstd, gzip, br, the first is taken when the client likes several alike; default: these, in this order
	MinBytes int64    `yaml:"min_bytes"` // shorter answers of a known length are left alone; 1..1MiB; default 1KiB
	Types    []string `yaml:"types"`     // media types without parameters; "text/*" takes a whole family; default: text and what is text in disguise
	Level    Level    `yaml:"level"`     // default fast
	Streams  bool     `yaml:"streams"`   // true = event streams too, flushed with each event
	AtOnce   int      `yaml:"at_once"`   // encoders that run at the same time for this route; answers beyond it go out as they are; 1..4096; default 64
}

// Level is how hard to try.
type Level string

// The levels. There is none above: what is compressed anew for each call had better be cached compressed by its origin.
const (
	Fast     Level = "fast"     // zstd fastest, gzip 1, br 3
	Balanced Level = "balanced" // zstd default, gzip 5, br 4
)

// ETag is which answers get an entity tag made of their bytes, and a 304 for the client that has them.
type ETag struct {
	MaxBytes int64 `yaml:"max_bytes"` // of an answer that is read whole for it; longer ones, and those of unknown length, are left alone; 1..1MiB; default 64KiB
}

// DefaultTypes are the media types that compress well: text, and what is text in disguise.
func DefaultTypes() []string {
	return []string{
		"text/*", "application/json", "application/*+json", "application/javascript", "application/xml", "application/*+xml",
		"application/x-ndjson", "application/yaml", "application/graphql-response+json", "application/wasm", "image/svg+xml",
		"application/vnd.ms-fontobject", "font/ttf", "font/otf",
	}
}

// WithDefaults fills what is zero.
func (c Config) WithDefaults() Config {
	if c.Compress != nil {
		z := *c.Compress
		if len(z.Codings) == 0 {
			z.Codings = []Coding{Zstd, Gzip, Brotli}
		}
		if z.MinBytes == 0 {
			z.MinBytes = 1 << 10
		}
		if len(z.Types) == 0 {
			z.Types = DefaultTypes()
		}
		if z.Level == "" {
			z.Level = Fast
		}
		if z.AtOnce == 0 {
			z.AtOnce = 64
		}
		c.Compress = &z
	}
	if c.ETag != nil && c.ETag.MaxBytes == 0 {
		c.ETag = &ETag{MaxBytes: 64 << 10}
	}
	return c
}

// Validate returns every fault of c, joined; each is a *setting.Error.
func (c Config) Validate() error {
	var f setting.Faults
	f.Check(c.MaxAnswerBytes >= 0, "max_answer_bytes", c.MaxAnswerBytes, "a size that is not negative")
	if z := c.Compress; z != nil {
		for i, coding := range z.Codings {
			path := fmt.Sprintf("compress.codings[%d]", i)
			f.Check(coding == Zstd || coding == Brotli || coding == Gzip, path, coding, "zstd, br or gzip")
			f.Check(!slices.Contains(z.Codings[:i], coding), path, coding, "a coding that is not listed before")
		}
		f.Check(z.MinBytes >= 0 && z.MinBytes <= 1<<20, "compress.min_bytes", z.MinBytes, "1..1MiB")
		for i, t := range z.Types {
			f.Check(patternOK(t), fmt.Sprintf("compress.types[%d]", i), t, "a media type such as text/html, text/* or application/*+json")
		}
		f.Check(len(z.Types) <= 64, "compress.types", len(z.Types), "at most 64 types")
		f.Check(z.Level == "" || z.Level == Fast || z.Level == Balanced, "compress.level", z.Level, "fast or balanced")
		f.Check(z.AtOnce >= 0 && z.AtOnce <= 4096, "compress.at_once", z.AtOnce, "1..4096")
	}
	if e := c.ETag; e != nil {
		f.Check(e.MaxBytes >= 0 && e.MaxBytes <= 1<<20, "etag.max_bytes", e.MaxBytes, "1..1MiB")
	}
	return f.Err()
}

func patternOK(pattern string) bool {
	family, kind, ok := strings.Cut(pattern, "/")
	if !ok || strings.Contains(family, "*") {
		return false
	}
	if kind == "*" {
		kind = "x"
	}
	kind = strings.TrimPrefix(kind, "*+")
	if strings.Contains(kind, "*") {
		return false
	}
	parsed, parameters, err := mime.ParseMediaType(family + "/" + kind)
	return err == nil && len(parameters) == 0 && parsed == family+"/"+kind
}

// types is the compiled form of a list of media types: reading it does not allocate.
type types []typePattern

type typePattern struct{ family, prefix, suffix string } // kind has prefix, or suffix; both "" = the whole family

func compileTypes(list []string) types {
	all := make(types, 0, len(list))
	for _, t := range list {
		family, kind, _ := strings.Cut(t, "/")
		p := typePattern{family: family + "/"}
		switch {
		case kind == "*":
		case strings.HasPrefix(kind, "*"):
			p.suffix = kind[1:]
		default:
			p.prefix = kind
		}
		all = append(all, p)
	}
	return all
}

// has reports whether a Content-Type is listed; its parameters do not matter.
func (t types) has(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	kind = trim(kind)
	for _, p := range t {
		if len(kind) <= len(p.family) || !strings.EqualFold(kind[:len(p.family)], p.family) {
			continue
		}
		rest := kind[len(p.family):]
		switch {
		case p.prefix == "" && p.suffix == "",
			p.prefix != "" && strings.EqualFold(rest, p.prefix),
			p.suffix != "" && len(rest) > len(p.suffix) && strings.EqualFold(rest[len(rest)-len(p.suffix):], p.suffix):
			return true
		}
	}
	return false
}
