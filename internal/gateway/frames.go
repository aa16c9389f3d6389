package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"

	"golang.org/x/net/http2"
)

// What one connection of HTTP/2 may hold. Frames are no larger than every server must take, so that no header block can be
// large before it is looked at.
const (
	maxStreams = 250
	maxFrame   = 16 << 10
)

// http2Config is for cleartext, and the same values serve TLS.
func http2Config() *http.HTTP2Config {
	return &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReadFrameSize: maxFrame}
}

// secureHTTP2 makes h speak HTTP/2 over TLS through tidied connections. net/http's own server cannot be given a connection
// whose bytes somebody else reads first, so the package that it is made from must do.
func secureHTTP2(h *http.Server) error {
	//nolint:staticcheck // see above
	s := &http2.Server{MaxConcurrentStreams: maxStreams, MaxReadFrameSize: maxFrame, IdleTimeout: h.IdleTimeout}
	if err := http2.ConfigureServer(h, s); err != nil { //nolint:staticcheck // see above
		return err
	}
	h.TLSNextProto[http2.NextProtoTLS] = func(hs *http.Server, c *tls.Conn, handler http.Handler) {
		var ctx context.Context
		// net/http hands the connection's context over in this way.
		if b, ok := handler.(interface{ BaseContext() context.Context }); ok {
			ctx = b.BaseContext()
		}
		//nolint:staticcheck // see above
		s.ServeConn(&tidyTLS{tidied{Conn: c, version: versionHTTP2, skip: len(http2.ClientPreface)}, c}, &http2.ServeConnOpts{Context: ctx, BaseConfig: hs, Handler: handler})
	}
	return nil
}

// errForeign is an error of a kind to which net/http says nothing.
var errForeign = &net.OpError{Op: "read", Err: errors.New("gateway: the client does not speak HTTP")}

// tidyTLS is tidied with what a handler may ask of TLS.
type tidyTLS struct {
	tidied
	secure *tls.Conn
}

// ConnectionState is that of the TLS connection.
func (c *tidyTLS) ConnectionState() tls.ConnectionState { return c.secure.ConnectionState() }

// The protocol that a connection turned out to speak.
const (
	versionUnknown = iota
	versionHTTP1
	versionHTTP2
	versionNone
)

// tidied is a client's connection on which two things are put right before the server reads them. A first line that is not
// of HTTP ends the connection without an answer, for who sent it would not understand one (RFC 9113 section 3.4). Of a
// setting that comes twice in one frame the last counts (section 6.5.3), where net/http takes offence: the earlier ones
// get numbers that mean nothing. Everything else passes as it is, without a copy.
type tidied struct {
	net.Conn
	version int
	seen    int     // bytes of the client preface, while the version is unknown
	skip    int     // bytes that belong to the preface, or to the payload of a frame
	head    [9]byte // of the next frame
	filled  int
	rest    []byte // read already: of a payload that was changed, or of the first line
}

// NetConn is the connection below, as tls.Conn gives it.
func (c *tidied) NetConn() net.Conn { return c.Conn }

// Read is used by one goroutine at a time.
func (c *tidied) Read(p []byte) (int, error) {
	if c.version == versionNone {
		return 0, errForeign
	}
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if c.version == versionHTTP1 || n <= 0 {
		return n, err
	}
	from := 0
	if c.version == versionUnknown {
		begin := c.seen == 0
		from = c.recognise(p[:n])
		if begin && c.version == versionHTTP1 && err == nil && c.foreign(p[:n]) {
			c.version, c.rest = versionNone, nil
			return 0, errForeign
		}
	}
	if c.version == versionHTTP2 {
		if werr := c.walk(p[from:n]); werr != nil {
			return n, werr
		}
	}
	return n, err
}

// recognise compares what comes first with the client preface, and returns how much of p belongs to it.
func (c *tidied) recognise(p []byte) int {
	for i, b := range p {
		if b != http2.ClientPreface[c.seen] {
			c.version = versionHTTP1
			return len(p)
		}
		if c.seen++; c.seen == len(http2.ClientPreface) {
			c.version = versionHTTP2
			return i + 1
		}
	}
	return len(p)
}

// foreign reports a first line, which begins with p, that names no version of HTTP. It waits for the rest of a short line.
func (c *tidied) foreign(p []byte) bool {
	const enough = 64 // a request line that is longer is left to the server
	line := append(make([]byte, 0, enough), p[:min(len(p), enough)]...)
	for len(line) < enough && bytes.IndexByte(line, '\n') < 0 {
		n, err := c.Conn.Read(line[len(line):enough])
		line = line[:len(line)+n]
		if err != nil {
			break // comes again with the next read
		}
	}
	if len(line) > len(p) {
		c.rest = line[len(p):]
	}
	line, _, whole := bytes.Cut(line, []byte("\n"))
	return whole && bytes.Count(line, []byte(" ")) == 2 && !bytes.Contains(line, []byte(" HTTP/"))
}

// walk follows the frames in p.
func (c *tidied) walk(p []byte) error {
	for len(p) > 0 {
		if c.skip > 0 {
			n := min(c.skip, len(p))
			c.skip -= n
			p = p[n:]
			continue
		}
		n := copy(c.head[c.filled:], p)
		c.filled += n
		if p = p[n:]; c.filled < len(c.head) {
			return nil
		}
		c.filled = 0
		c.skip = int(binary.BigEndian.Uint32(c.head[:4]) >> 8)
		settings := c.head[3] == byte(http2.FrameSettings) && c.head[4]&byte(http2.FlagSettingsAck) == 0
		if !settings || c.skip <= 6 || c.skip > maxFrame {
			continue
		}
		payload := make([]byte, c.skip)
		n = copy(payload, p)
		c.skip = 0
		if _, err := io.ReadFull(c.Conn, payload[n:]); err != nil {
			return err
		}
		lastCounts(payload)
		copy(p[:n], payload)
		c.rest = payload[n:]
		p = p[n:]
	}
	return nil
}

// lastCounts renames the settings in payload that come again later in it.
func lastCounts(payload []byte) {
	const size, known, meaningless = 6, 16, 0xf000
	var last [known]int
	for i := 0; i+size <= len(payload); i += size {
		if id := binary.BigEndian.Uint16(payload[i:]); id < known {
			if at := last[id]; at > 0 {
				binary.BigEndian.PutUint16(payload[at-1:], uint16(meaningless+at/size))
			}
			last[id] = i + 1
		}
	}
}
