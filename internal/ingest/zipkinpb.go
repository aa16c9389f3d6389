package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strconv"

	"github.com/longpole/longpole/internal/trace"
)

// zipkinSpans decodes a ListOfSpans, Zipkin v2's protobuf.
func (d *decoder) zipkinSpans(message []byte) error {
	j := document{decoder: d}
	defer d.drop(mark{})
	err := messages(message, 1, func(data []byte) error {
		if !d.another() {
			return nil
		}
		var z zipkinSpan
		m := d.mark()
		err := fields(data, func(f *field) error { return d.zipkinField(&z, m, f) })
		z.span.Attributes = d.takeAttributes(m.pool)
		j.zipkin = append(j.zipkin, z)
		return err
	})
	if err != nil {
		return err
	}
	j.flushZipkin()
	return nil
}

// zipkinJSON decodes a list of Zipkin v2 spans in JSON.
func (d *decoder) zipkinJSON(data []byte) error {
	j := document{decoder: d, scan: newScanner(bytes.NewReader(data))}
	defer d.drop(mark{})
	s := j.scan
	if s.token() != '[' {
		if errors.Is(s.err, io.EOF) {
			s.err = errCut
		}
		s.fault("a list of spans")
	} else {
		s.array(func() {
			if s.token() != '{' {
				s.skip()
				d.counts.Invalid++
				return
			}
			if !d.another() {
				s.skip()
				return
			}
			var z zipkinSpan
			m := j.mark()
			s.object(func(key []byte) { j.zipkinMember(&z, m, key) })
			z.span.Attributes = j.takeAttributes(m.pool)
			j.zipkin = append(j.zipkin, z)
		})
		if s.err == nil && s.token() != 0 {
			s.fault("the end of the document")
		}
	}
	d.counts.CutText += s.cutTexts
	if s.err != nil && !errors.Is(s.err, io.EOF) {
		return fmt.Errorf("byte %d: %w", s.offset(), s.err)
	}
	j.flushZipkin()
	return nil
}

// zipkinKinds are the kinds as Zipkin numbers them.
var zipkinKinds = [...]trace.Kind{trace.Unspecified, trace.Client, trace.Server, trace.Producer, trace.Consumer}

func (d *decoder) zipkinField(z *zipkinSpan, m mark, f *field) (err error) {
	ok := true
	switch s := &z.span; f.number {
	case 1:
		s.TraceID, ok = d.traceID(f)
	case 2:
		s.Parent, ok = d.spanID(f)
	case 3:
		s.ID, ok = d.spanID(f)
	case 4:
		if ok = f.kind == wireVarint; f.n < uint64(len(zipkinKinds)) {
			s.Kind = zipkinKinds[f.n]
		}
	case 5:
		if ok = f.kind == wireBytes; ok {
			s.Name = d.text(f.data)
		}
	case 6:
		s.Start, ok = z.micros(f.n), f.kind == wireFixed64
	case 7:
		z.length, ok = z.micros(f.n), f.kind == wireVarint
	case 8:
		s.Service, s.Host, _, err = d.zipkinEndpointOf(f)
	case 9:
		var service, host, port string
		service, host, port, err = d.zipkinEndpointOf(f)
		d.zipkinPeer(m, "peer.service", service)
		d.zipkinPeer(m, "net.peer.ip", host)
		d.zipkinPeer(m, "net.peer.port", port)
	case 11:
		if ok = f.kind == wireBytes; ok {
			err = d.zipkinTag(z, m, f.data)
		}
	case 13:
		z.shared, ok = f.n != 0, f.kind == wireVarint
	}
	if !ok {
		return errWire
	}
	return err
}

func (z *zipkinSpan) micros(n uint64) int64 {
	ns, ok := micros(int64(min(n, math.MaxInt64)))
	z.bad = z.bad || !ok
	return ns
}

func (d *decoder) zipkinTag(z *zipkinSpan, m mark, data []byte) error {
	key, value, err := keyAndValue(data)
	if err != nil || len(key) == 0 {
		return err
	}
	if string(key) == "error" {
		z.span.Failed = string(value) != "false"
	}
	d.attributeNamed(m.pool, d.text(key), value)
	return nil
}

func (d *decoder) zipkinEndpointOf(f *field) (service, host, port string, err error) {
	if f.kind != wireBytes {
		return "", "", "", errWire
	}
	err = fields(f.data, func(f *field) error {
		switch f.number {
		case 1:
			service = d.text(f.data)
			return expect(f, wireBytes)
		case 2, 3:
			if ip, ok := netip.AddrFromSlice(f.data); ok && (f.number == 2 || host == "") {
				host = d.text(ip.AppendTo(nil))
			}
			return expect(f, wireBytes)
		case 4:
			if f.n > 0 && f.n < 1<<16 {
				port = strconv.FormatUint(f.n, 10)
			}
			return expect(f, wireVarint)
		}
		return nil
	})
	return service, host, port, err
}
