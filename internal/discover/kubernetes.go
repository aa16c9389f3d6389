package discover

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// podDir is where Kubernetes puts what a pod needs to talk to it.
const podDir = "/var/run/secrets/kubernetes.io/serviceaccount/"

const (
	listPage   = 500             // slices in one page of a list
	maxList    = 64 << 20        // bytes of one page
	maxEvent   = 4 << 20         // bytes of one event of a watch
	watchTime  = 4 * time.Minute // one watch, up to a quarter more; another one follows
	watchGrace = 30 * time.Second
	listTime   = 30 * time.Second
	leastWatch = time.Second // a watch that ends sooner is followed by a pause
)

// cluster watches EndpointSlices by the REST API alone: the official client would be larger than all the rest.
type cluster struct {
	cfg    Kubernetes
	client *http.Client
	base   string // of the collection
	query  url.Values
	view   view
}

// run lists and watches. After a watch breaks it goes on from where it was; only a version that is too old, or a start,
// needs a list.
func (c *cluster) run(ctx context.Context, tell report) {
	b := backoff{first: 500 * time.Millisecond, most: 30 * time.Second}
	listed := false
	defer c.close()
	for ctx.Err() == nil {
		var err error
		if !listed {
			if err = c.list(ctx); err == nil {
				listed = true
				tell(c.view.endpoints(), nil)
			}
		}
		began := time.Now()
		if err == nil {
			err = c.watch(ctx, tell, &b)
		}
		switch {
		case errors.Is(err, errGone):
			listed = false
			err = nil
		case err != nil:
			tell(nil, err)
		}
		if err != nil || time.Since(began) < leastWatch {
			sleep(ctx, b.next(rand.Float64()))
		} else {
			b.reset()
		}
	}
}

// connect prepares to ask. It is done again before each list, as files and addresses may have changed.
func (c *cluster) connect() error {
	server, namespace := c.cfg.Server, c.cfg.Namespace
	if server == "" {
		host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return errorf("kubernetes.server is not set, and this is no pod: KUBERNETES_SERVICE_HOST and _PORT are not set")
		}
		server = "https://" + net.JoinHostPort(host, port)
	}
	if namespace == "" {
		data, err := os.ReadFile(podDir + "namespace")
		if err != nil {
			return errorf("kubernetes.namespace is not set, and this is no pod: %w", err)
		}
		namespace = strings.TrimSpace(string(data))
	}
	t := &http.Transport{TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: listTime}
	if strings.HasPrefix(server, "https:") {
		data, err := os.ReadFile(c.cfg.CAFile)
		if err != nil {
			return errorf("reading ca_file: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(data) {
			return errorf("%s holds no PEM certificate", c.cfg.CAFile)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	c.close()
	c.client = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	c.base = strings.TrimRight(server, "/") + "/apis/discovery.k8s.io/v1/namespaces/" + url.PathEscape(namespace) + "/endpointslices"
	c.query = url.Values{"labelSelector": {"kubernetes.io/service-name=" + c.cfg.Service}}
	return nil
}

func (c *cluster) close() {
	if c.client != nil {
		c.client.CloseIdleConnections()
	}
}

// get asks with the token of now: it is replaced every hour.
func (c *cluster) get(ctx context.Context, more url.Values) (*http.Response, error) {
	q := maps.Clone(c.query)
	maps.Copy(q, more)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"?"+q.Encode(), nil)
	if err != nil {
		return nil, errorf("%w", err)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "longpole")
	// In the clear, to a proxy on this machine, nothing secret is sent.
	if r.URL.Scheme == "https" {
		token, err := os.ReadFile(c.cfg.TokenFile)
		if err != nil {
			return nil, errorf("reading token_file: %w", err)
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	res, err := c.client.Do(r)
	if err != nil {
		return nil, errorf("asking the API server: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		s := apiStatus{Code: res.StatusCode, Message: http.StatusText(res.StatusCode)}
		_ = json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&s)
		s.Code = res.StatusCode
		return nil, statusError(s)
	}
	return res, nil
}

// list reads all slices, page by page.
func (c *cluster) list(ctx context.Context) error {
	if err := c.connect(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	var all []endpointSlice
	for next, pages := "", 0; ; pages++ {
		q := url.Values{"limit": {strconv.Itoa(listPage)}}
		if next != "" {
			q.Set("continue", next)
		}
		page, err := c.page(ctx, q)
		if err != nil {
			return err
		}
		all = append(all, page.Items...)
		next = page.Metadata.Continue
		if next == "" || pages >= maxSlices/listPage {
			c.view.cfg = c.cfg
			c.view.replace(all, page.Metadata.ResourceVersion)
			return nil
		}
	}
}

func (c *cluster) page(ctx context.Context, q url.Values) (list sliceList, err error) {
	res, err := c.get(ctx, q)
	if err != nil {
		return list, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, maxList)).Decode(&list); err != nil {
		return list, errorf("a list of EndpointSlices that cannot be read: %w", err)
	}
	return list, nil
}

// watch tells each change from the view's version on; nil when the server ended the watch in order.
func (c *cluster) watch(ctx context.Context, tell report, b *backoff) error {
	long := watchTime + rand.N(watchTime/4)
	ctx, cancel := context.WithTimeout(ctx, long+watchGrace)
	defer cancel()
	res, err := c.get(ctx, url.Values{
		"watch": {"true"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {c.view.version},
		"timeoutSeconds": {strconv.Itoa(int(long.Seconds()))},
	})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	tell(c.view.endpoints(), nil) // the same as before, but known to be right again
	body := &quota{r: res.Body}
	for d := json.NewDecoder(body); ; {
		body.left = maxEvent
		var e watchEvent
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return errorf("the watch broke off: %w", err)
		}
		changed, err := c.view.apply(e)
		if err != nil {
			return err
		}
		b.reset()
		if changed {
			tell(c.view.endpoints(), nil)
		}
	}
}

// quota bounds what is read until its owner renews it.
type quota struct {
	r    io.Reader
	left int
}

var errQuota = errors.New("an event of more than 4 MiB")

// Read implements io.Reader.
func (q *quota) Read(p []byte) (int, error) {
	if q.left <= 0 {
		return 0, errQuota
	}
	n, err := q.r.Read(p[:min(len(p), q.left)])
	q.left -= n
	return n, err
}
