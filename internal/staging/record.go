package staging

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/judge"
)

// ErrRecord is what a record that cannot be used errs with.
var ErrRecord = errors.New("staging: not a record")

// MaxRecordBytes bounds one record.
const MaxRecordBytes = 4 << 20

// Hash names the content of a change: the route, and the whole new policy with every default spelt out, or else the
// upstream that becomes its version. Where the change starts from is no part of it, as environments may differ in that.
func Hash(route, version string, policy any) (string, error) {
	text, err := conf.MarshalJSON(policy)
	if err != nil {
		return "", fmt.Errorf("staging: the policy cannot be written: %w", err)
	}
	if version != "" {
		text = []byte("null")
	}
	whole, err := json.Marshal([]any{route, version, json.RawMessage(text)})
	if err != nil {
		return "", fmt.Errorf("staging: the policy cannot be written: %w", err)
	}
	sum := sha256.Sum256(whole)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

var hashForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// Latency is three percentiles in milliseconds; zero = unknown.
type Latency struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// Promoted is the Phase of a change that is, or was, in force.
const Promoted = "promoted"

// Record says how a change went in an environment. Its JSON form is stable.
type Record struct {
	Hash        string          `json:"hash"` // of Hash
	Environment string          `json:"environment"`
	Rollout     string          `json:"rollout"` // its id there
	Route       string          `json:"route"`
	Version     string          `json:"version,omitempty"` // upstream that was tried in place of a policy
	Phase       string          `json:"phase"`             // how the rollout ended: promoted, rolled_back, aborted, inconclusive
	Outcome     string          `json:"outcome"`           // why
	Change      json.RawMessage `json:"change,omitempty"`  // in the form of a file
	Goal        string          `json:"goal"`
	Target      string          `json:"target"` // metric
	Verdict     judge.Verdict   `json:"verdict"`
	Judgement   judge.Judgement `json:"judgement"`
	Predicted   *Latency        `json:"predicted_ms,omitempty"`
	Low         *Latency        `json:"predicted_low_ms,omitempty"` // the interval that it was to lie in with 90 %
	High        *Latency        `json:"predicted_high_ms,omitempty"`
	Widened     float64         `json:"predicted_widened,omitempty"` // the factor by which that interval was widened, after Stretch; 0 = it was not
	Before      Latency         `json:"before_ms"`                   // of the baseline cohort
	After       Latency         `json:"after_ms"`                    // of the candidate
	Code        string          `json:"code,omitempty"`              // of the finding that it was to cure
	Kind        string          `json:"kind,omitempty"`              // of the action
	Class       string          `json:"class,omitempty"`             // of the segment that it was to cut; "" = not said
	Summary     string          `json:"summary,omitempty"`           // of the finding
	Cost        string          `json:"cost,omitempty"`              // that was accepted
	ShareP99    float64         `json:"share_p99,omitempty"`         // of the critical path that the finding had
	Workload    *Workload       `json:"workload,omitempty"`          // of the environment when it was made
	Holdback    float64         `json:"holdback,omitempty"`          // share of the calls that keeps the policy before
	Attempts    float64         `json:"attempts_factor,omitempty"`
	Override    bool            `json:"override,omitempty"` // it was tried there without the record that was required
	Weak        bool            `json:"weak,omitempty"`     // the record that was required proved little
	At          time.Time       `json:"at"`                 // end of the rollout
	Reason      string          `json:"reason,omitempty"`   // as given by who asked for it
	Undone      time.Time       `json:"undone,omitzero"`
	UndoReason  string          `json:"undo_reason,omitempty"`
}

// Verified reports whether the change may go on to the next environment: it was promoted on evidence, not by hand or for
// want of time, and is in force there still.
func (r *Record) Verified() bool {
	return r.Phase == Promoted && r.Undone.IsZero() && (r.Verdict == judge.Improved || r.Verdict == judge.NoWorse)
}

// Validate says what is wrong with a record from elsewhere; errors.Is ErrRecord.
func (r *Record) Validate() error {
	switch {
	case !hashForm.MatchString(r.Hash):
		return fmt.Errorf("%w: hash %q; want sha256: and 64 hexadecimal digits", ErrRecord, r.Hash)
	case !environmentName.MatchString(r.Environment):
		return fmt.Errorf("%w: environment %q; want a name", ErrRecord, r.Environment)
	case r.Rollout == "" || r.Route == "":
		return fmt.Errorf("%w: it names no rollout or no route", ErrRecord)
	case r.At.IsZero():
		return fmt.Errorf("%w: it has no time", ErrRecord)
	}
	return nil
}

// ParseRecord reads one record as JSON. Fields that it does not know, those of a newer version, are left out.
func ParseRecord(data []byte) (r Record, err error) {
	if len(data) > MaxRecordBytes {
		return r, fmt.Errorf("%w: longer than %d bytes", ErrRecord, MaxRecordBytes)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if d.More() {
		return Record{}, fmt.Errorf("%w: something follows it", ErrRecord)
	}
	if err := r.Validate(); err != nil {
		return Record{}, err
	}
	return r, nil
}

// Find is the newest record of a change by an environment that verified it; ok is false when none did.
func Find(all []Record, environment, hash string) (newest Record, ok bool) {
	for _, r := range all {
		if r.Environment == environment && r.Hash == hash && r.Verified() && (!ok || r.At.After(newest.At)) {
			newest, ok = r, true
		}
	}
	return newest, ok
}

// Newest puts records in the order of their time, the newest first, and keeps so many.
func Newest(all []Record, most int) []Record {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Record) int { return b.At.Compare(a.At) })
	return all[:min(most, len(all))]
}
