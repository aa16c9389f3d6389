package web

import (
	"net/http"

	"github.com/longpole/longpole/internal/offload"
)

// jobs adds the work that was put off: the API of offload.Handler under one name.
//
//	GET    /api/v1/jobs                       the queues
//	GET    /api/v1/jobs/{id}                  where a job stands
//	GET    /api/v1/jobs/dead?queue=&after=&limit=
//	POST   /api/v1/jobs/dead/replay?queue=
//	GET    /api/v1/jobs/dead/{id}
//	POST   /api/v1/jobs/dead/{id}/replay
//	DELETE /api/v1/jobs/dead/{id}
func (a *admin) jobs(mux *http.ServeMux) {
	h := offload.Handler(a.Gateway.Jobs)
	mux.HandleFunc("GET /api/v1/jobs", func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawPath = "/queues", ""
		h.ServeHTTP(w, r)
	})
	mux.Handle("GET /api/v1/jobs/{id}", http.StripPrefix("/api/v1", h))
	for _, pattern := range []string{"GET /api/v1/jobs/dead", "GET /api/v1/jobs/dead/", "POST /api/v1/jobs/dead/", "DELETE /api/v1/jobs/dead/"} {
		mux.Handle(pattern, http.StripPrefix("/api/v1/jobs", h))
	}
}
