package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

var grpcCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server",
	"cancel_after_begin", "cancel_after_first_response", "status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service",
}

func grpcSuite() suite {
	return suite{
		name:  "grpc",
		title: "gRPC interop",
		about: "The 14 interop cases of grpc-go's client and server through the subject, each case many times, a process for each run: " +
			"in the clear and over TLS to the subject, HTTP/2 in the clear from it. A case passes when all of its runs do. Goal: 14 of 14, 100 runs each.",
		columns: []string{"in the clear: cases", "runs", "over TLS: cases", "runs"},
		run:     runGRPC,
	}
}

func runGRPC(ctx context.Context, e *env, s *subject) (result, error) {
	port := freePort()
	origin, err := startProcess(filepath.Join(e.work, "interop.log"), []string{filepath.Join(e.tools, "interop_server"), "--port", strconv.Itoa(port)})
	if err != nil {
		return result{}, err
	}
	defer origin.stop()
	if err := origin.waitFor(ctx, local(port)); err != nil {
		return result{}, err
	}
	front, err := s.start(ctx, e, grpc, local(port))
	if err != nil {
		return result{}, err
	}
	defer front.stop()
	r := result{}
	for _, over := range []struct {
		name, address string
		flags         []string
	}{{"in the clear", front.h2c, nil}, {"over TLS", front.tls, []string{"--use_tls", "--use_test_ca", "--ca_file", e.cert, "--server_host_override", "localhost"}}} {
		passed, good, all := 0, 0, 0
		for _, name := range grpcCases {
			failed, why := interop(ctx, e, name, over.address, over.flags)
			all += e.runs
			good += e.runs - failed
			if failed == 0 {
				passed++
				continue
			}
			r.Failures = append(r.Failures, fmt.Sprintf("%s: %s: %d of %d runs failed: %s", over.name, code(name), failed, e.runs, why))
			r.Missed = "gRPC interop"
		}
		r.Cells = append(r.Cells, fmt.Sprintf("%d/%d", passed, len(grpcCases)), fmt.Sprintf("%d/%d", good, all))
	}
	return r, ctx.Err()
}

// interop runs one case e.runs times, two at a time, and gives up after ten failures in a row.
func interop(ctx context.Context, e *env, name, address string, flags []string) (failed int, why string) {
	host, port, _ := net.SplitHostPort(address)
	args := append([]string{"--server_host", host, "--server_port", port, "--test_case", name}, flags...)
	var mu sync.Mutex
	var wg sync.WaitGroup
	left, row := e.runs, 0
	for range 2 {
		wg.Go(func() {
			for {
				mu.Lock()
				if left == 0 || row >= 10 || ctx.Err() != nil {
					mu.Unlock()
					return
				}
				left--
				mu.Unlock()
				run, cancel := context.WithTimeout(ctx, 20*time.Second)
				out, err := exec.CommandContext(run, filepath.Join(e.tools, "interop_client"), args...).CombinedOutput()
				cancel()
				mu.Lock()
				if row++; err == nil {
					row = 0
				} else {
					failed++
					why = code(lastLine(out))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed + left, why
}
