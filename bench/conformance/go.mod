module github.com/longpole/longpole/bench/conformance

go 1.26.0

require github.com/coder/websocket v1.8.15

require (
	golang.org/x/net v0.62.0
	golang.org/x/text v0.43.0 // indirect
)
