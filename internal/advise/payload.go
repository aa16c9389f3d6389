package advise

import "fmt"

var payloadEntry = entry{
	kind: KindPayload, step: StepRemove, answers: []string{"LP114"}, cure: payload,
	needs: []string{"it is known which fields and rows the callers use"},
	watch: []string{"longpole_response_body_bytes of the route", "CPU of both sides (compression)", "errors of callers that miss a field"},
}

// payload cures answers that are larger than they need be: cut to what a typical answer weighs.
func payload(s *situation) (Action, string) {
	cut := 0.5
	if d := s.finding.Detail; d.Bytes > 0 && d.BytesUsual > 0 && d.BytesUsual < d.Bytes {
		cut = min(0.9, max(cut, 1-float64(d.BytesUsual)/float64(d.Bytes)))
	}
	p, reason := s.corpus.lighter(targetOf(s.finding), s.calls(), cut)
	if reason != "" {
		return Action{}, "no payload cut: " + reason
	}
	return Action{
		Kind: KindPayload, Effects: s.forecast(p),
		Summary: fmt.Sprintf("send %.0f%% fewer bytes in the answers of %s: only the fields that are used, pages in place of whole lists, and compression", 100*cut, targetOf(s.finding)),
		Benefit: p.notes[0],
		Cost:    "code on both sides; compression costs CPU, about 10 ms for each MB with zstd at its default",
		Risk:    "callers that do use what is left out. The forecast takes every answer to shrink by that share",
		Text: `SELECT *            ->  SELECT the columns that are shown
GET /items          ->  GET /items?limit=50&after=<last id>&fields=id,name,price
Longpole gateway    ->  payload: {compress: {}, etag: {}}     # of the route: zstd, gzip, br; 304 for what has not changed`,
	}, ""
}
