package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/longpole/longpole/internal/slo"
)

// WebhookConfig is where alerts are sent.
type WebhookConfig = slo.Webhook

const (
	longestPause  = time.Minute
	longestWish   = 5 * time.Minute // of a Retry-After
	farewell      = 5 * time.Second // for what still waits at the end
	maxAnswerBody = 64 << 10        // read so that the connection can be used again
)

// Notifier sends alerts to a webhook, one after the other, in the order they came. Make one with NewNotifier, and Run it.
// Notify may be called by anyone at any time.
type Notifier struct {
	cfg    WebhookConfig
	client *http.Client
	log    *slog.Logger
	queue  chan []byte

	sent, failed, dropped atomic.Uint64
}

// NotifierCounts are how many alerts ended how. All only grow.
type NotifierCounts struct {
	Sent    uint64
	Failed  uint64 // given up after all attempts, or refused by the receiver
	Dropped uint64 // for want of room in the queue
}

// NewNotifier sends by transport (nil = http.DefaultTransport) to the webhook of c, which must be valid. Redirects are not
// followed: an alert goes where the file says.
func NewNotifier(c WebhookConfig, transport http.RoundTripper, log *slog.Logger) *Notifier {
	c = c.WithDefaults()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &Notifier{cfg: c, client: client, log: log, queue: make(chan []byte, c.Queue)}
}

// Counts are those so far.
func (n *Notifier) Counts() NotifierCounts {
	return NotifierCounts{Sent: n.sent.Load(), Failed: n.failed.Load(), Dropped: n.dropped.Load()}
}

// Notify queues body, which is sent as JSON. It does not wait: when the queue is full the alert is dropped and counted.
func (n *Notifier) Notify(body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("fleet: an alert that is no JSON: %w", err)
	}
	select {
	case n.queue <- data:
	default:
		n.dropped.Add(1)
		n.log.Warn("an alert was dropped: the webhook is too slow", "queue", cap(n.queue))
	}
	return nil
}

// Run sends until ctx ends. What waits then gets one attempt each, for 5 s all together.
func (n *Notifier) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			n.end(ctx)
			return
		case data := <-n.queue:
			if !n.deliver(ctx, data) { // the end came between two attempts
				n.end(ctx, data)
				return
			}
		}
	}
}

// end gives first, and then what still waits, its last attempt.
func (n *Notifier) end(ctx context.Context, first ...[]byte) {
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	for _, data := range first {
		n.last(after, data)
	}
	for {
		select {
		case data := <-n.queue:
			n.last(after, data)
		default:
			return
		}
	}
}

func (n *Notifier) last(ctx context.Context, data []byte) {
	if _, err := n.post(ctx, data); err != nil {
		n.failed.Add(1)
		n.log.Warn("an alert was not delivered before the end", "error", err)
		return
	}
	n.sent.Add(1)
}

// deliver tries until it is done, one way or the other; false when ctx ended before.
func (n *Notifier) deliver(ctx context.Context, data []byte) (done bool) {
	for attempt := 1; ; attempt++ {
		wish, err := n.post(ctx, data)
		if err == nil {
			n.sent.Add(1)
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if attempt == n.cfg.Attempts || errors.Is(err, errRefused) {
			n.failed.Add(1)
			n.log.Warn("an alert was not delivered", "attempts", attempt, "error", err)
			return true
		}
		pause := min(time.Second<<min(attempt-1, 6), longestPause)
		pause = max(pause-rand.N(pause/4), wish)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}

// ErrWebhook is what an attempt to deliver an alert wraps when it failed; it is seen in the log only.
var ErrWebhook = errors.New("fleet: webhook")

// errRefused marks an answer that another attempt would not change.
var errRefused = fmt.Errorf("%w refused the alert", ErrWebhook)

// post makes one attempt. wish is how long the receiver wants to be left alone.
func (n *Notifier) post(ctx context.Context, data []byte) (wish time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.cfg.URL, bytes.NewReader(data))
	if err != nil {
		return 0, errRefused
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "longpole")
	for name, value := range n.cfg.Headers {
		req.Header.Set(name, value)
	}
	resp, err := n.client.Do(req)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok { // its text holds the address, and addresses of webhooks hold secrets
			err = inner.Err
		}
		return 0, fmt.Errorf("%w: %w", ErrWebhook, err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswerBody)
	switch c := resp.StatusCode; {
	case c >= 200 && c < 300:
		return 0, nil
	case c == http.StatusTooManyRequests || c == http.StatusRequestTimeout || c >= 500:
		return retryAfter(resp.Header.Get("Retry-After")), fmt.Errorf("%w answered %d", ErrWebhook, c)
	default:
		return 0, fmt.Errorf("%w: %d", errRefused, c)
	}
}

// retryAfter reads seconds; a date is as good as none here.
func retryAfter(text string) time.Duration {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(n)*time.Second, longestWish)
}
