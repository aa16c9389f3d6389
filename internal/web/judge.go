package web

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/longpole/longpole/internal/judge"
)

// maxJudge bounds the body of a comparison that another program asks for.
const maxJudge = 64 << 20

// judge lets other programs use the judge without rollouts of ours: 200 when the candidate is fit, 409 when it is worse, 422
// when nothing can be said yet. So it serves as a webhook of Flagger, which goes by the status, and as a web metric
// of Argo Rollouts, which reads verdict from the body.
func (a *admin) judge(w http.ResponseWriter, r *http.Request) {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJudge))
	d.DisallowUnknownFields()
	var q judge.Request
	err := d.Decode(&q)
	if err == nil && d.Decode(new(any)) != io.EOF {
		err = errors.New("want one JSON object, and nothing behind it")
	}
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		writeError(w, http.StatusRequestEntityTooLarge, "the body is too long; 64 MiB are the most")
		return
	}
	if err == nil {
		err = q.Validate()
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	answer := q.Judge()
	status := http.StatusUnprocessableEntity
	switch answer.Verdict {
	case judge.Improved, judge.NoWorse:
		status = http.StatusOK
	case judge.Worse:
		status = http.StatusConflict
	case judge.Inconclusive, judge.Invalid, judge.Environment:
	}
	writeJSON(w, status, answer)
}
