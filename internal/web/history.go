package web

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/stats"
	"github.com/longpole/longpole/internal/store"
)

// mostPoints bounds an answer of history.
const mostPoints = 5000

// point is one step of a series.
type point struct {
	At        time.Time         `json:"at"`
	Calls     uint64            `json:"calls"`
	Failed    uint64            `json:"failed"`
	LatencyMS gateway.Quantiles `json:"latency_ms"`
}

// track is what one thing did over time.
type track struct {
	store.Series
	Points []point `json:"points"`
}

// history is the percentiles of routes and endpoints over time, merged to steps of ?step= (default a sixtieth of the time
// asked for). ?route=, ?segment= and ?endpoint= choose, and ?whole=true leaves out what is of one endpoint only; ?from= and ?to= are RFC 3339, or durations before now; default the
// last hour.
func (a *admin) history(w http.ResponseWriter, r *http.Request) {
	if a.Store == nil {
		writeError(w, http.StatusNotFound, "no history is kept; give the configuration a state folder: `state: {dir: FOLDER}`")
		return
	}
	q, now := r.URL.Query(), time.Now()
	from, err := moment(q, "from", now, now.Add(-time.Hour))
	if err == nil {
		var to time.Time
		if to, err = moment(q, "to", now, now); err == nil {
			a.historyOf(w, r, from, to)
			return
		}
	}
	writeError(w, http.StatusBadRequest, err.Error())
}

// moment reads a time as history takes it.
func moment(q url.Values, name string, now, otherwise time.Time) (time.Time, error) {
	text := q.Get(name)
	if text == "" {
		return otherwise, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%s: %q is no time; want 2026-01-31T12:00:00Z, or a duration before now such as 6h", name, text)
	}
	return t, nil
}

func (a *admin) historyOf(w http.ResponseWriter, r *http.Request, from, to time.Time) {
	q := r.URL.Query()
	step := max(to.Sub(from)/60, 10*time.Second).Truncate(10 * time.Second)
	if text := q.Get("step"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 10*time.Second {
			writeError(w, http.StatusBadRequest, fmt.Sprintf("step: %q is no step; want a duration of at least 10s", text))
			return
		}
		step = d
	}
	if !to.After(from) || to.Sub(from)/step > mostPoints {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("want from before to, and at most %d steps between them", mostPoints))
		return
	}
	all, dropped, whole := []*track{}, 0, q.Get("whole") == "true"
	place := map[store.Series]*track{}
	newest := map[store.Series]stats.Snapshot{} // of the last point of each series
	points := 0
	err := a.Store.Each(r.Context(), store.Query{Series: store.Series{Route: q.Get("route"), Segment: q.Get("segment"), Endpoint: q.Get("endpoint")}, From: from, To: to}, func(u store.Rollup) bool {
		if whole && u.Endpoint != "" {
			return true
		}
		s := place[u.Series]
		if s == nil {
			s = &track{Series: u.Series}
			place[u.Series], all = s, append(all, s)
		}
		at := u.From.Truncate(step)
		if n := len(s.Points); n == 0 || !s.Points[n-1].At.Equal(at) {
			if points++; points > 4*mostPoints {
				dropped++
				return true
			}
			s.Points = append(s.Points, point{At: at})
			newest[u.Series] = stats.Snapshot{}
		}
		p := &s.Points[len(s.Points)-1]
		newest[u.Series] = newest[u.Series].Merge(u.Latency)
		p.Calls, p.Failed, p.LatencyMS = p.Calls+u.Calls, p.Failed+u.Failed, gateway.QuantilesOf(newest[u.Series])
		return true
	})
	if err != nil {
		writeError(w, http.StatusInternalServerError, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"from": from, "to": to, "step_seconds": step.Seconds(), "series": all, "points_left_out": dropped})
}
