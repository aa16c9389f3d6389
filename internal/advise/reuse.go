package advise

import "fmt"

var reuseEntry = entry{
	kind: KindReuse, step: StepRemove, answers: []string{"LP104", "LP102"}, cure: reuse,
	needs: []string{"the answer may not change while one request is served"},
	watch: []string{"calls to the callee for each request", "memory of the service"},
}

// repeats are the reads of one trace that ask for what an earlier one of it had already answered.
func (c *corpus) repeats(t target) (p plan, reads, again int) {
	here := make(map[int][]int)
	for n, spans := range byTrace(c.callsTo(t)) {
		line := c.traces[n]
		ends := make(map[string]int64) // by what was asked for: when the first answer was there
		for _, i := range inOrder(line, spans) {
			key, personal := readKey(&line.spans[line.servedBy(i)])
			if key == "" {
				key, personal = readKey(&line.spans[i])
			}
			if personal || key == "" || key == notRead {
				continue
			}
			reads++
			switch end, ok := ends[key]; {
			case ok && end <= line.spans[i].Start:
				here[n] = append(here[n], i)
				p.spans = append(p.spans, ref{n, i})
				again++
			case !ok && !line.spans[i].Failed:
				ends[key] = line.spans[i].End
			}
		}
	}
	p.doubt = plainDoubt
	p.extra = -share(float64(again), float64(reads))
	p.apply = func(_, n int, e *edit) {
		for _, i := range here[n] {
			e.set(i, 0)
		}
	}
	return p, reads, again
}

// reuse cures a request that asks for the same more than once: the first answer is kept until it is done.
func reuse(s *situation) (Action, string) {
	p, reads, again := s.corpus.repeats(targetOf(s.finding))
	if again < minCalls {
		return Action{}, ""
	}
	return Action{
		Kind: KindReuse, Effects: s.forecast(p), ExtraLoad: p.extra,
		Summary: fmt.Sprintf("keep the answers of %s for as long as one request lasts, and use them again", targetOf(s.finding)),
		Benefit: fmt.Sprintf("%.0f%% of the reads ask for what the same request has been told already", 100*share(float64(again), float64(reads))),
		Cost:    "a map for each request",
		Risk:    "a request that writes what it read before must forget the old answer",
		Text: fmt.Sprintf(`before:
    x = %[1]s(id)
    ...
    x = %[1]s(id)                  # the same id, later in the same request
after:
    memo = {}                      # made with the request, dropped with it
    x = memo.get(id) or memo.put(id, %[1]s(id))`, callName(s.finding.Operation)),
	}, ""
}
