// Command conformance runs public conformance suites, and mutations of its own, against Longpole and against nginx,
// HAProxy, Varnish and Caddy in the same way, and writes the results as tables. scripts/conformance.sh installs what it
// needs. Everything runs on free loopback ports; every process that it starts is ended by it.
package main
