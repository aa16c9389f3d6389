package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// h2Frame is one HTTP/2 request: its fields exactly as they are sent, however wrong.
type h2Frame struct {
	fields   [][2]string
	body     string
	trailers [][2]string
}

func (f *h2Frame) marked(id string) *h2Frame {
	mark := func(in [][2]string) [][2]string {
		out := make([][2]string, len(in))
		for i, kv := range in {
			out[i] = [2]string{strings.ReplaceAll(kv[0], "%ID%", id), strings.ReplaceAll(kv[1], "%ID%", id)}
		}
		return out
	}
	return &h2Frame{mark(f.fields), strings.ReplaceAll(f.body, "%ID%", id), mark(f.trailers)}
}

// h2Payloads lists the mutations of HTTP/2 requests.
func h2Payloads() []payload {
	var all []payload
	add := func(class, name string, f h2Frame) { all = append(all, payload{class: class, name: name, h2: &f}) }
	base := func(method string, extra ...[2]string) [][2]string {
		return append([][2]string{{":method", method}, {":scheme", "http"}, {":authority", "front.example"}, {":path", "/a-%ID%"}}, extra...)
	}
	const end = " HTTP/1.1\r\nHost: front.example\r\n\r\n"
	for name, kv := range h2Headers() {
		add("header", name, h2Frame{fields: base("GET", kv)})
		add("header", name+", with a body", h2Frame{fields: base("POST", kv), body: "0\r\n\r\n" + inner})
	}
	for name, value := range map[string]string{"5 of 54": "5", "0": "0", "too long": "500", "plus": "+5", "minus": "-5", "list": "5, 5", "word": "x", "hexadecimal": "0x5", "overflow": "18446744073709551621", "space": " 5"} {
		add("length", name, h2Frame{fields: base("POST", [2]string{"content-length", value}), body: "hello" + inner})
		add("length", name+", without a body", h2Frame{fields: base("POST", [2]string{"content-length", value})})
	}
	add("length", "twice, differing", h2Frame{fields: base("POST", [2]string{"content-length", "5"}, [2]string{"content-length", "6"}), body: "hello"})
	add("length", "twice, the same", h2Frame{fields: base("POST", [2]string{"content-length", "5"}, [2]string{"content-length", "5"}), body: "hello"})
	replace := func(name, value string) [][2]string {
		fields := base("GET")
		for i := range fields {
			if fields[i][0] == name {
				fields[i][1] = value
			}
		}
		return fields
	}
	for name, path := range map[string]string{
		"space": "/a-%ID% b", "a whole request": "/a-%ID%" + end + "GET /smuggled-%ID%", "LF": "/a-%ID%\nX: y", "NUL": "/a-%ID%\x00", "tab": "/a-%ID%\tb", "fragment": "/a-%ID%#b", "no slash": "a-%ID%", "empty": "",
		"star": "*", "absolute": "http://other.example/a-%ID%", "network path": "//other.example/a-%ID%", "version": "/a-%ID% HTTP/1.1", "letters beyond ASCII": "/a-%ID%\xff",
	} {
		add(":path", name, h2Frame{fields: replace(":path", path)})
	}
	for name, method := range map[string]string{"a whole request": "GET /a-%ID%" + end + "GET", "space": "GET /smuggled-%ID%", "CR LF": "GET\r\nX: y", "empty": "", "colon": "GET:", "small letters": "get"} {
		add(":method", name, h2Frame{fields: replace(":method", method)})
	}
	for name, value := range map[string]string{"CR LF": "front.example\r\nX: y", "a whole request": "front.example\r\n\r\nGET /smuggled-%ID%" + end, "space": "front.example x", "user": "user@front.example", "path": "front.example/x", "empty": "", "list": "front.example, other.example"} {
		add(":authority", name, h2Frame{fields: replace(":authority", value)})
	}
	for name, value := range map[string]string{"CR LF": "http\r\nX: y", "a whole URL": "http://other.example/?", "empty": "", "space": "http x"} {
		add(":scheme", name, h2Frame{fields: replace(":scheme", value)})
	}
	add("pseudo", "no :path", h2Frame{fields: base("GET")[:3]})
	add("pseudo", "no :method", h2Frame{fields: base("GET")[1:]})
	add("pseudo", "no :scheme", h2Frame{fields: slices.Delete(base("GET"), 1, 2)})
	add("pseudo", ":path twice", h2Frame{fields: append(base("GET"), [2]string{":path", "/smuggled-%ID%"})})
	add("pseudo", "unknown", h2Frame{fields: append(base("GET"), [2]string{":x", "y"})})
	add("pseudo", ":status", h2Frame{fields: append(base("GET"), [2]string{":status", "200"})})
	add("pseudo", "after a header", h2Frame{fields: [][2]string{{":method", "GET"}, {"x", "y"}, {":scheme", "http"}, {":authority", "front.example"}, {":path", "/a-%ID%"}}})
	add("pseudo", "no :authority, two hosts", h2Frame{fields: [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", "/a-%ID%"}, {"host", "front.example"}, {"host", "other.example"}}})
	add("pseudo", "no :authority, no host", h2Frame{fields: slices.Delete(base("GET"), 2, 3)})
	add("pseudo", "CONNECT with a path", h2Frame{fields: base("CONNECT")})
	for name, kv := range map[string][2]string{
		"pseudo": {":path", "/smuggled-%ID%"}, "content-length": {"content-length", "50"}, "transfer-encoding": {"transfer-encoding", "chunked"}, "CR LF": {"x", "y\r\nContent-Length: 50"}, "name with CR LF": {"x\r\n\r\nGET", "y"},
		"host": {"host", "other.example"}, "a fair one": {"x-trailer", "y"},
	} {
		add("trailer", name, h2Frame{fields: base("POST"), body: "hello", trailers: [][2]string{kv}})
	}
	slices.SortFunc(all, func(a, b payload) int { return strings.Compare(a.class+" "+a.name, b.class+" "+b.name) })
	return all
}

// h2Headers are fields that HTTP/2 forbids, or that mean something else once they are HTTP/1.1.
func h2Headers() map[string][2]string {
	return map[string][2]string{
		"value with CR LF":  {"x", "y\r\nTransfer-Encoding: chunked"},
		"value with LF":     {"x", "y\nTransfer-Encoding: chunked"},
		"value with CR":     {"x", "y\rTransfer-Encoding: chunked"},
		"value with NUL":    {"x", "y\x00z"},
		"value with a head": {"x", "y\r\n\r\nGET /smuggled-%ID% HTTP/1.1\r\nHost: front.example\r\nX: "},
		"name with CR LF":   {"x: y\r\ntransfer-encoding", "chunked"},
		"name with LF":      {"x: y\ntransfer-encoding", "chunked"},
		"name with colon":   {"transfer-encoding: chunked\r\nx", "y"},
		"name with a colon": {"x:y", "z"},
		"name with space":   {"transfer-encoding ", "chunked"},
		"name with NUL":     {"x\x00", "y"},
		"name in capitals":  {"Transfer-Encoding", "chunked"},
		"empty name":        {"", "y"},
		"leading space":     {"x", " y"},
		"transfer-encoding": {"transfer-encoding", "chunked"},
		"te, not trailers":  {"te", "trailers, chunked"},
		"connection":        {"connection", "close"},
		"connection names":  {"connection", "content-length"},
		"keep-alive":        {"keep-alive", "timeout=5"},
		"proxy-connection":  {"proxy-connection", "keep-alive"},
		"upgrade":           {"upgrade", "h2c"},
		"host differs":      {"host", "other.example"},
		"host with CR LF":   {"host", "front.example\r\nX: y"},
		"cookie with CR LF": {"cookie", "a=b\r\nX: y"},
		"underscore":        {"transfer_encoding", "chunked"},
		"0x7f in a value":   {"x", "y\x7f"},
		"0x01 in a name":    {"x\x01", "y"},
		"expect":            {"expect", "100-continue"},
		"huge":              {"x", strings.Repeat("y", 200_000)},
	}
}

// sendH2 sends one request on a connection of its own and reads until its stream ends.
func sendH2(ctx context.Context, address string, f *h2Frame) answers {
	c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return answers{end: "no connection"}
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(firstAnswer)) // a socket that is open takes a deadline
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return answers{end: "closed"}
	}
	framer := http2.NewFramer(c, c)
	framer.AllowIllegalWrites = true
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	errs := errors.Join(framer.WriteSettings(), f.write(framer))
	a := readH2(framer)
	if errs != nil && len(a.status) == 0 {
		a.end = " closed"
	}
	return a
}

func (f *h2Frame) write(framer *http2.Framer) error {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	encode := func(fields [][2]string) []byte {
		block.Reset()
		for _, kv := range fields {
			_ = enc.WriteField(hpack.HeaderField{Name: kv[0], Value: kv[1]}) // a buffer takes everything
		}
		return bytes.Clone(block.Bytes())
	}
	headers := func(data []byte, end bool) error {
		const size = 16 << 10
		first := data[:min(size, len(data))]
		data = data[len(first):]
		err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: len(data) == 0, EndStream: end})
		for len(data) > 0 && err == nil {
			piece := data[:min(size, len(data))]
			data = data[len(piece):]
			err = framer.WriteContinuation(1, len(data) == 0, piece)
		}
		return err
	}
	err := headers(encode(f.fields), f.body == "" && f.trailers == nil)
	if f.body != "" && err == nil {
		err = framer.WriteData(1, f.trailers == nil, []byte(f.body))
	}
	if f.trailers != nil && err == nil {
		err = headers(encode(f.trailers), true)
	}
	return err
}

// readH2 reads what the subject says of stream 1.
func readH2(framer *http2.Framer) answers {
	var a answers
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			if len(a.status) == 0 {
				a.end, a.closed = " closed", true
				if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
					a.end, a.closed = " no answer", false
				}
			}
			return a
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = framer.WriteSettingsAck() // a failure shows at the next read
			}
		case *http2.GoAwayFrame:
			if frame.ErrCode != http2.ErrCodeNo {
				a.end, a.closed = fmt.Sprintf(" GOAWAY %v", frame.ErrCode), true
				return a
			}
		case *http2.RSTStreamFrame:
			if len(a.status) == 0 {
				a.end, a.closed = fmt.Sprintf(" RST_STREAM %v", frame.ErrCode), true
			}
			return a
		case *http2.MetaHeadersFrame:
			status, _ := strconv.Atoi(frame.PseudoValue("status"))
			if status > 0 {
				a.status = append(a.status, status)
			}
			for _, kv := range frame.RegularFields() {
				if kv.Name == "x-seen" {
					a.seen = append(a.seen, kv.Value)
				}
			}
			if frame.StreamEnded() {
				return a
			}
		case *http2.DataFrame:
			if frame.StreamEnded() {
				return a
			}
		}
	}
}
