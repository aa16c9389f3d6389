package grpcpolicy

import (
	"errors"
	"sync"

	"google.golang.org/grpc"
)

// Pool keeps one connection for each endpoint. The zero value is not ready: use NewPool. All methods are safe for
// concurrent use.
type Pool struct {
	options []grpc.DialOption
	mu      sync.Mutex
	closed  bool
	conns   map[string]*grpc.ClientConn
}

// errClosed says that a pool was closed.
var errClosed = errors.New("grpcpolicy: pool closed")

// NewPool returns a pool that dials with the given options, and without grpc-go's own retries.
func NewPool(options ...grpc.DialOption) *Pool {
	return &Pool{
		options: append([]grpc.DialOption{grpc.WithDisableRetry()}, options...),
		conns:   make(map[string]*grpc.ClientConn),
	}
}

// Conn returns the connection to an endpoint; its first call makes it. It is meant for ClientOptions.Conn.
func (p *Pool) Conn(endpoint string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	if c := p.conns[endpoint]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient(endpoint, p.options...)
	if err != nil {
		return nil, err
	}
	p.conns[endpoint] = c
	return c, nil
}

// Retain closes the connections to endpoints that are not among names, such as after balance.Set.Replace. Calls on them fail.
func (p *Pool) Retain(names ...string) error {
	keep := make(map[string]bool, len(names))
	for _, n := range names {
		keep[n] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for n, c := range p.conns {
		if !keep[n] {
			err = errors.Join(err, c.Close())
			delete(p.conns, n)
		}
	}
	return err
}

// Close closes all connections.
func (p *Pool) Close() error {
	err := p.Retain()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return err
}
