// Package web is the admin side of a running Longpole: the JSON API, the metrics, the health endpoints and the page.
//
//	GET  /                               the page
//	GET  /api/v1/routes                  routes, their policies, endpoints and percentiles
//	GET  /api/v1/findings                the newest diagnosis with its actions; ?baseline= one beside an earlier time
//	GET  /api/v1/rollouts[/ID]           rollouts, running and ended
//	POST /api/v1/rollouts                start one: {"route", "to" or "advice", ...}
//	POST /api/v1/rollouts/ID/promote     {"reason"}
//	POST /api/v1/rollouts/ID/abort       {"reason"}
//	POST /api/v1/rollouts/ID/pause       {"reason"}, and resume, undo, release
//	GET  /api/v1/history                 percentiles over time
//	GET  /api/v1/traces[/ID]             kept traces
//	GET  /api/v1/slos                    objectives and error budgets
//	GET  /api/v1/scale                   wanted replicas
//	GET  /metrics                        Prometheus
//	GET  /livez, /readyz[?verbose]
//
// Errors are {"error": text}; those of a body name line, column and field. Nothing here is cached by browsers.
//
// Requests that change something are refused when a browser sends them from another site. Without a token every request
// is refused whose Host is a name, since a hostile DNS answer could point it here: use the IP address or localhost. With
// a token, all but /livez and /readyz ask for it, and any Host will do.
package web
