package web

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/longpole/longpole/internal/certs"
	"github.com/longpole/longpole/internal/gateway"
	"github.com/longpole/longpole/internal/offload"
	"github.com/longpole/longpole/internal/payload"
)

// What a route does beside its policy. Labels hold names of the configuration, but for faults, of which at most 16 run on
// a route at once.
var (
	requestSizeDesc  = prometheus.NewDesc("longpole_request_body_bytes", "Sizes of request bodies.", []string{"route"}, nil)
	responseSizeDesc = prometheus.NewDesc("longpole_response_body_bytes", "Sizes of response bodies as they were sent, encoded or not.", []string{"route"}, nil)
	encodedDesc      = prometheus.NewDesc("longpole_payload_encoded_total", "Answers that were compressed.", []string{"route"}, nil)
	unencodedDesc    = prometheus.NewDesc("longpole_payload_encoding_refused_total", "Answers that went out as they were, because too many were being compressed.", []string{"route"}, nil)
	encodedInDesc    = prometheus.NewDesc("longpole_payload_encoded_input_bytes_total", "Bytes of compressed answers, before.", []string{"route"}, nil)
	encodedOutDesc   = prometheus.NewDesc("longpole_payload_encoded_output_bytes_total", "Bytes of compressed answers, after.", []string{"route"}, nil)

	mirrorSentDesc     = prometheus.NewDesc("longpole_mirror_sent_total", "Copies of calls that were sent to another upstream.", []string{"route", "upstream"}, nil)
	mirrorDroppedDesc  = prometheus.NewDesc("longpole_mirror_dropped_total", "Copies that were drawn and not sent: full = for want of room, unfit = the body was not kept.", []string{"route", "upstream", "reason"}, nil)
	mirrorFailedDesc   = prometheus.NewDesc("longpole_mirror_failed_total", "Copies without an answer.", []string{"route", "upstream"}, nil)
	mirrorComparedDesc = prometheus.NewDesc("longpole_mirror_compared_total", "Copies with an answer: same = its status is of the class that the call's was.", []string{"route", "upstream", "status"}, nil)
	mirrorLatencyDesc  = prometheus.NewDesc("longpole_mirror_duration_seconds", "Time to the head of the answer, of copies and of the calls that they are copies of.", []string{"route", "upstream", "of"}, nil)

	faultsDesc       = prometheus.NewDesc("longpole_faults_running", "Injected faults that run now.", []string{"route"}, nil)
	faultHitsDesc    = prometheus.NewDesc("longpole_fault_hits_total", "Calls or attempts that a fault hit, while it runs.", []string{"route", "fault"}, nil)
	faultPassedDesc  = prometheus.NewDesc("longpole_fault_passed_total", "Calls or attempts that passed because max_active suffered already.", []string{"route", "fault"}, nil)
	faultActiveDesc  = prometheus.NewDesc("longpole_fault_active_calls", "Calls or attempts that suffer now.", []string{"route", "fault"}, nil)
	splitWeightDesc  = prometheus.NewDesc("longpole_split_weight", "Weight of one version of a split route, in relation to the others'.", []string{"route", "upstream"}, nil)
	splitCallsDesc   = prometheus.NewDesc("longpole_split_calls_total", "Calls that ended, by version.", []string{"route", "upstream"}, nil)
	splitFailedDesc  = prometheus.NewDesc("longpole_split_failed_total", "Calls that failed, by version.", []string{"route", "upstream"}, nil)
	splitLatencyDesc = prometheus.NewDesc("longpole_split_call_duration_seconds", "Time to the head of the answer, by version.", []string{"route", "upstream"}, nil)
)

// What the gateway does beside its routes.
var (
	jobsDesc         = prometheus.NewDesc("longpole_offload_jobs", "Jobs by state: queued, running in this gateway, dead.", []string{"queue", "state"}, nil)
	jobBytesDesc     = prometheus.NewDesc("longpole_offload_stored_bytes", "Bytes that the jobs of a queue need in the store.", []string{"queue"}, nil)
	oldestJobDesc    = prometheus.NewDesc("longpole_offload_oldest_job_age_seconds", "Age of the oldest job that is not done; 0 = there is none.", []string{"queue"}, nil)
	jobStoreDesc     = prometheus.NewDesc("longpole_offload_store_reachable", "1 when the job store answers. While it is 0 the series of jobs are missing.", []string{"queue"}, nil)
	acceptedDesc     = prometheus.NewDesc("longpole_offload_accepted_total", "Calls that were stored as jobs.", []string{"queue"}, nil)
	duplicatesDesc   = prometheus.NewDesc("longpole_offload_duplicates_total", "Calls answered with a job that was there already.", []string{"queue"}, nil)
	jobsRefusedDesc  = prometheus.NewDesc("longpole_offload_refused_total", "Calls whose job could not be stored: full = the queue is, unreachable = the store.", []string{"queue", "reason"}, nil)
	deliveredDesc    = prometheus.NewDesc("longpole_offload_delivered_total", "Jobs that are done.", []string{"queue"}, nil)
	failedTriesDesc  = prometheus.NewDesc("longpole_offload_failed_deliveries_total", "Deliveries that failed; each is followed by another one or by a dead letter.", []string{"queue"}, nil)
	unsentDesc       = prometheus.NewDesc("longpole_offload_unsent_total", "Deliveries that a policy held back.", []string{"queue"}, nil)
	buriedDesc       = prometheus.NewDesc("longpole_offload_dead_total", "Jobs that became dead letters.", []string{"queue"}, nil)
	stuckDesc        = prometheus.NewDesc("longpole_offload_stuck_total", "Times that a job could not become a dead letter, for want of room.", []string{"queue"}, nil)
	replayedDesc     = prometheus.NewDesc("longpole_offload_replayed_total", "Dead letters that were replayed.", []string{"queue"}, nil)
	recordedDesc     = prometheus.NewDesc("longpole_recorded_total", "Calls that were written to the recording.", nil, nil)
	unrecordedDesc   = prometheus.NewDesc("longpole_recording_dropped_total", "Calls that were drawn and not recorded: lag = the disk lagged behind, disk = it refused.", []string{"reason"}, nil)
	tierDesc         = prometheus.NewDesc("longpole_cache_tier_requests_total", "Uses of the second tier of the caches: found and missing are reads, stored are writes; failed and skipped are both.", []string{"result"}, nil)
	connectionsDesc  = prometheus.NewDesc("longpole_connections", "Client connections that are open.", []string{"listener"}, nil)
	connectionsLimit = prometheus.NewDesc("longpole_connections_limit", "Bound on them; more wait to be accepted.", []string{"listener"}, nil)
	connectedDesc    = prometheus.NewDesc("longpole_connections_accepted_total", "Client connections that were accepted.", []string{"listener"}, nil)
	tunnelsDesc      = prometheus.NewDesc("longpole_tunnels", "Connections that were switched to another protocol, as WebSocket is, and are open.", nil, nil)
	expiryDesc       = prometheus.NewDesc("longpole_certificate_expiry_timestamp_seconds", "When a certificate ends, in seconds since 1970; file is empty for one by ACME.", []string{"file", "name"}, nil)
	lastGoodDesc     = prometheus.NewDesc("longpole_discovery_last_good_timestamp_seconds", "When discovery last told a set of endpoints, in seconds since 1970; 0 = not yet. A file is read when it changes only.", []string{"upstream"}, nil)
	failingDesc      = prometheus.NewDesc("longpole_discovery_failing", "1 when discovery fails at present; the last good set stays in force.", []string{"upstream"}, nil)
	endpointsDesc    = prometheus.NewDesc("longpole_upstream_endpoints", "Endpoints of an upstream that routes use, configured or discovered.", []string{"upstream"}, nil)
)

// side is what a route does beside its policy.
func (s series) side(r gateway.RouteStatus) {
	s <- sizes{requestSizeDesc, r.RequestSizes, r.Name}
	s <- sizes{responseSizeDesc, r.ResponseSizes, r.Name}
	if p := r.Payload; p != nil {
		s.counter(encodedDesc, p.Encoded, r.Name)
		s.counter(unencodedDesc, p.Refused, r.Name)
		s.counter(encodedInDesc, p.InBytes, r.Name)
		s.counter(encodedOutDesc, p.OutBytes, r.Name)
	}
	if m := r.Mirror; m != nil {
		s.mirror(r.Name, m)
	}
	s.gauge(faultsDesc, float64(len(r.Faults)), r.Name)
	for _, f := range r.Faults {
		s.counter(faultHitsDesc, f.Hits, r.Name, f.Name)
		s.counter(faultPassedDesc, f.Passed, r.Name, f.Name)
		s.gauge(faultActiveDesc, float64(f.Active), r.Name, f.Name)
	}
	for _, v := range r.Versions {
		s.gauge(splitWeightDesc, float64(v.Weight), r.Name, v.Upstream)
		s.counter(splitCallsDesc, v.Tally.Calls, r.Name, v.Upstream)
		s.counter(splitFailedDesc, v.Tally.Failed, r.Name, v.Upstream)
		s <- histogram{splitLatencyDesc, v.Tally.Latency, []string{"route", r.Name, "upstream", v.Upstream}}
	}
}

func (s series) mirror(route string, m *gateway.MirrorStatus) {
	s.counter(mirrorSentDesc, m.Sent, route, m.Upstream)
	s.counter(mirrorDroppedDesc, m.Dropped, route, m.Upstream, "full")
	s.counter(mirrorDroppedDesc, m.Unfit, route, m.Upstream, "unfit")
	s.counter(mirrorFailedDesc, m.Failed, route, m.Upstream)
	s.counter(mirrorComparedDesc, m.Same, route, m.Upstream, "same")
	s.counter(mirrorComparedDesc, m.Differ, route, m.Upstream, "differ")
	s <- histogram{mirrorLatencyDesc, m.Latency, []string{"of", "copy", "route", route, "upstream", m.Upstream}}
	s <- histogram{mirrorLatencyDesc, m.Original, []string{"of", "call", "route", route, "upstream", m.Upstream}}
}

// storePatience bounds how long a scrape waits for the job store, all queues together.
const storePatience = 2 * time.Second

// beside is what the gateway does beside its routes.
func (s series) beside(g *gateway.Gateway) {
	if store := g.Jobs(); store != nil {
		ctx, done := context.WithTimeout(context.Background(), storePatience)
		defer done()
		for _, q := range store.Queues() {
			s.queue(q.Status(ctx))
		}
	}
	recorded := g.Recorded()
	s.counter(recordedDesc, recorded.Written)
	s.counter(unrecordedDesc, recorded.Dropped, "lag")
	s.counter(unrecordedDesc, recorded.Failed, "disk")
	if tier, there := g.CacheTier(); there {
		for result, n := range map[string]uint64{"found": tier.Found, "missing": tier.Missing, "stored": tier.Stored, "failed": tier.Failed, "skipped": tier.Skipped} {
			s.counter(tierDesc, n, result)
		}
	}
	for _, l := range g.Listeners() {
		s.gauge(connectionsDesc, float64(l.Open), l.Address)
		s.gauge(connectionsLimit, float64(l.Limit), l.Address)
		s.counter(connectedDesc, l.Accepted, l.Address)
	}
	s.gauge(tunnelsDesc, float64(g.Tunnels()))
	for _, d := range g.Discovery() {
		at := 0.0
		if !d.LastGood.IsZero() {
			at = float64(d.LastGood.UnixMilli()) / 1000
		}
		s.gauge(lastGoodDesc, at, d.Upstream)
		s.flag(failingDesc, d.Failing != "", d.Upstream)
	}
	s.certificates(g.Certificates())
}

func (s series) queue(q offload.QueueStatus) {
	s.flag(jobStoreDesc, q.Reachable, q.Queue)
	s.gauge(jobsDesc, float64(q.Running), q.Queue, "running")
	if q.Reachable {
		s.gauge(jobsDesc, float64(q.Queued), q.Queue, "queued")
		s.gauge(jobsDesc, float64(q.Dead), q.Queue, "dead")
		s.gauge(jobBytesDesc, float64(q.Bytes), q.Queue)
		s.gauge(oldestJobDesc, q.OldestMS/1000, q.Queue)
	}
	s.counter(acceptedDesc, q.Accepted, q.Queue)
	s.counter(duplicatesDesc, q.Duplicates, q.Queue)
	s.counter(jobsRefusedDesc, q.Full, q.Queue, "full")
	s.counter(jobsRefusedDesc, q.Unreachable, q.Queue, "unreachable")
	s.counter(deliveredDesc, q.Delivered, q.Queue)
	s.counter(failedTriesDesc, q.Retried, q.Queue)
	s.counter(unsentDesc, q.Unsent, q.Queue)
	s.counter(buriedDesc, q.Buried, q.Queue)
	s.counter(stuckDesc, q.Stuck, q.Queue)
	s.counter(replayedDesc, q.Replayed, q.Queue)
}

// certificates tells of each file once, the first to end: the files of several listeners may be the same.
func (s series) certificates(all []certs.Status) {
	type place struct{ file, name string }
	ends := map[place]time.Time{}
	for _, c := range all {
		p := place{file: c.File}
		if len(c.Names) > 0 {
			p.name = c.Names[0]
		}
		if end, known := ends[p]; !known || c.NotAfter.Before(end) {
			ends[p] = c.NotAfter
		}
	}
	for p, end := range ends {
		s.gauge(expiryDesc, float64(end.Unix()), p.file, p.name)
	}
}

// sizes is a snapshot of sizes in Prometheus's classic form.
type sizes struct {
	desc     *prometheus.Desc
	snapshot payload.SizeSnapshot
	route    string
}

// Desc is part of prometheus.Metric.
func (z sizes) Desc() *prometheus.Desc { return z.desc }

// sizeBounds are powers of four, from a small answer to a large download.
var sizeBounds = []float64{0, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30}

// Write is part of prometheus.Metric. A bucket ends where the snapshot's around its bound does, up to 1.1 % later.
func (z sizes) Write(m *dto.Metric) error {
	name := "route"
	m.Label = []*dto.LabelPair{{Name: &name, Value: &z.route}}
	count, sum := z.snapshot.Count(), float64(z.snapshot.Sum())
	out := &dto.Histogram{SampleCount: &count, SampleSum: &sum}
	below := make([]uint64, len(sizeBounds))
	for upper, n := range z.snapshot.Buckets() {
		lower := upper / math.Exp2(1.0/64)
		if upper < 1 {
			lower = -1 // it holds the empty bodies
		}
		for i, bound := range sizeBounds {
			if lower < bound {
				below[i] += n
			}
		}
	}
	for i, n := range below {
		out.Bucket = append(out.Bucket, &dto.Bucket{UpperBound: &sizeBounds[i], CumulativeCount: &n})
	}
	m.Histogram = out
	return nil
}
