package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

func TestTheLastOfASettingThatComesTwiceCounts(t *testing.T) {
	g, _ := real(t, "{}", ok(strings.Repeat("x", 100)))
	f := speak2(t, g.Addr().String())
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 4096},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: 50}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 7})
	if got := f.ask(1, "", ":method", "GET", ":scheme", "http", ":path", "/", ":authority", "h"); got != "200" {
		t.Fatalf("got %s", got)
	}
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := fr.(*http2.DataFrame); ok {
			if len(d.Data()) != 7 {
				t.Errorf("%d bytes came at once", len(d.Data()))
			}
			return
		}
	}
}

func TestWhatIsNoHTTPGetsNoAnswer(t *testing.T) {
	g, _ := real(t, "{}", ok("a"))
	conn, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "INVALID CONNECTION PREFACE\r\n\r\n")
	if b, err := io.ReadAll(conn); len(b) != 0 {
		t.Errorf("got %q, %v", b, err)
	}
}

// pieces is a connection from which so many bytes come at a time.
type pieces struct {
	net.Conn
	from io.Reader
	size int
}

func (c *pieces) Read(p []byte) (int, error) { return c.from.Read(p[:min(len(p), c.size)]) }

// stream is a client's side of HTTP/2 as bytes.
func clientBytes(frames ...[]byte) []byte {
	all := []byte(http2.ClientPreface)
	for _, f := range frames {
		all = append(all, f...)
	}
	return all
}

func frame(kind http2.FrameType, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	return append(append(b, 0, 0, 0, 0, 0), payload...)
}

func oneSetting(id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, id), value)
}

func TestOnlySettingsAreTouchedHoweverTheBytesCome(t *testing.T) {
	twice := bytes.Join([][]byte{oneSetting(4, 1), oneSetting(1, 9), oneSetting(4, 2)}, nil)
	in := clientBytes(frame(http2.FrameSettings, twice), frame(http2.FrameData, twice), frame(http2.FrameSettings, nil), frame(http2.FrameSettings, oneSetting(4, 3)))
	tidy := bytes.Join([][]byte{oneSetting(0xf000, 1), oneSetting(1, 9), oneSetting(4, 2)}, nil)
	want := clientBytes(frame(http2.FrameSettings, tidy), frame(http2.FrameData, twice), frame(http2.FrameSettings, nil), frame(http2.FrameSettings, oneSetting(4, 3)))
	for size := 1; size <= len(in); size++ {
		c := &tidied{Conn: &pieces{from: bytes.NewReader(in), size: size}}
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("in pieces of %d: %v\n%x\n%x", size, err, got, want)
		}
	}
}

func FuzzTidied(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), 3)
	f.Add(clientBytes(frame(http2.FrameSettings, append(oneSetting(4, 1), oneSetting(4, 2)...))), 7)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		size = max(1, size%64)
		got, err := io.ReadAll(&tidied{Conn: &pieces{from: bytes.NewReader(in), size: size}})
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) && !errors.Is(err, errForeign) {
			t.Fatal(err)
		}
		if len(got) > len(in) {
			t.Errorf("%d bytes out of %d", len(got), len(in))
		}
		again, _ := io.ReadAll(&tidied{Conn: &pieces{from: bytes.NewReader(in), size: 4096}})
		if n := min(len(got), len(again)); !bytes.Equal(got[:n], again[:n]) {
			t.Errorf("in pieces of %d it reads otherwise than whole", size)
		}
	})
}
