package web

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/routing"
)

// hidden stands where a secret was.
const hidden = "hidden"

// withoutSecrets is c as those may see it who may steer the gateway but not what it speaks to: passwords are hidden, and
// values of header fields that prove who one is.
func withoutSecrets(c gateway.Config) gateway.Config {
	if c.Redis != nil && c.Redis.Password != "" {
		r := *c.Redis
		r.Password = hidden
		c.Redis = &r
	}
	if h := c.Alerts.Webhook; h != nil {
		hook := *h
		hook.URL = hidden // many hold their token in the path
		hook.Headers = maps.Clone(hook.Headers)
		for name := range hook.Headers {
			hook.Headers[name] = hidden
		}
		c.Alerts.Webhook = &hook
	}
	c.Offload.URL = withoutPassword(c.Offload.URL)
	if c.Evidence != nil {
		e := c.Evidence.WithoutSecrets()
		c.Evidence = &e
	}
	if c.Review.Webhook != "" {
		c.Review.Webhook = hidden // who knows the address may write there
	}
	c.Routes = slices.Clone(c.Routes)
	for i := range c.Routes {
		r := &c.Routes[i]
		r.RequestHeader, r.AnswerHeader = withoutProofs(r.RequestHeader), withoutProofs(r.AnswerHeader)
	}
	return c
}

// withoutPassword hides who one is in URLs that are separated by commas.
func withoutPassword(urls string) string {
	all := strings.Split(urls, ",")
	for i, text := range all {
		if u, err := url.Parse(strings.TrimSpace(text)); err == nil && u.User != nil {
			u.User = url.User(hidden)
			all[i] = u.String()
		}
	}
	return strings.Join(all, ",")
}

// proofs are the fields whose values are secrets, in lower case.
var proofs = []string{"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"}

func withoutProofs(e *routing.HeaderEdit) *routing.HeaderEdit {
	if e == nil {
		return nil
	}
	out := *e
	for _, fields := range []*map[string]string{&out.Set, &out.Add} {
		*fields = maps.Clone(*fields)
		for name := range *fields {
			if slices.Contains(proofs, strings.ToLower(name)) {
				(*fields)[name] = hidden
			}
		}
	}
	return &out
}
