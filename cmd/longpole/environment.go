package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/longpole/longpole/internal/conf"
	"github.com/longpole/longpole/internal/review"
	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/staging"
)

// mostRecords bounds what is read of another environment, and kept of this one in memory.
const mostRecords = 1000

// forerunner is the environment that must have verified a change before it is tried in this one.
type forerunner struct{ cfg staging.Config }

// records are its records, the newest first. Files that are no records are named in the error, beside those that are.
func (b forerunner) records(ctx context.Context) ([]staging.Record, error) {
	if b.cfg.Records != "" {
		return recordsIn(b.cfg.Records)
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Patience)
	defer cancel()
	var answer struct {
		Records []json.RawMessage `json:"records"`
	}
	if err := b.client().do(ctx, "GET", "/api/v1/records", nil, &answer); err != nil {
		return nil, err
	}
	var list []staging.Record
	var faults []error
	for _, text := range answer.Records[:min(len(answer.Records), mostRecords)] {
		r, err := staging.ParseRecord(text)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		list = append(list, r)
	}
	return staging.Newest(list, mostRecords), errors.Join(faults...)
}

func (b forerunner) client() *adminClient {
	return &adminClient{base: b.cfg.URL, token: os.Getenv(b.cfg.TokenEnv)}
}

// workload is that of the other environment now; of a folder, that of its newest record. ok is false when it is not known.
func (b forerunner) workload(ctx context.Context, records []staging.Record) (w staging.Workload, ok bool) {
	if b.cfg.URL != "" {
		ctx, cancel := context.WithTimeout(ctx, b.cfg.Patience)
		defer cancel()
		if b.client().do(ctx, "GET", "/api/v1/workload", nil, &w) == nil {
			return w, true
		}
	}
	for _, r := range records {
		if r.Workload != nil && r.Environment == b.cfg.Requires {
			return *r.Workload, true
		}
	}
	return w, false
}

// exercised are the faults that were injected there; nil when it does not say.
func (b forerunner) exercised(ctx context.Context) []review.Exercise {
	if b.cfg.URL == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Patience)
	defer cancel()
	var answer struct {
		Exercised []review.Exercise `json:"exercised"`
	}
	if b.client().do(ctx, "GET", "/api/v1/exercised", nil, &answer) != nil {
		return nil
	}
	list := answer.Exercised[:min(len(answer.Exercised), mostExercises)]
	for i := range list {
		list[i].Environment = b.cfg.Requires
	}
	return list
}

// recordsIn reads the records in a folder, *.json.
func recordsIn(dir string) (list []staging.Record, err error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the first change has not been verified yet
	}
	if err != nil {
		return nil, err
	}
	var faults []error
	read := 0
	for _, f := range files {
		if f.IsDir() || !strings.HasSuffix(f.Name(), ".json") {
			continue
		}
		if read++; read > 10*mostRecords {
			faults = append(faults, fmt.Errorf("%s: more than %d records; move the oldest elsewhere", dir, 10*mostRecords))
			break
		}
		r, err := recordIn(filepath.Join(dir, f.Name()))
		if err != nil {
			faults = append(faults, err)
			continue
		}
		list = append(list, r)
	}
	return staging.Newest(list, mostRecords), errors.Join(faults...)
}

func recordIn(path string) (staging.Record, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > staging.MaxRecordBytes {
		err = fmt.Errorf("%w: %s is longer than %d bytes", staging.ErrRecord, path, staging.MaxRecordBytes)
	}
	if err != nil {
		return staging.Record{}, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return staging.Record{}, err
	}
	r, err := staging.ParseRecord(data)
	if err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// verified is rollout.Options.Verified: the gate in front of an environment that requires another one.
func (s *server) verified(spec rollout.Spec, hash string) (v rollout.Verification, err error) {
	cfg := s.gateway.Effective().Environment
	if cfg.Requires == "" {
		return v, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*cfg.Patience)
	defer cancel()
	records, err := forerunner{cfg}.records(ctx)
	r, ok := staging.Find(records, cfg.Requires, hash)
	if !ok {
		why := fmt.Sprintf("environment %s has no record of %s on route %q", cfg.Requires, hash, spec.Change.Route)
		if err != nil {
			why += fmt.Sprintf("; its records: %v", err)
		}
		return v, fmt.Errorf("%w: %s", rollout.ErrUnverified, why)
	}
	v.Text = fmt.Sprintf("verified in %s by %s at %s (%s)", r.Environment, r.Rollout, r.At.UTC().Format("2006-01-02 15:04"), r.Verdict)
	if r.Workload == nil {
		v.Weak = true
		v.Text += "; the record does not say under which workload, so it is weak"
		return v, nil
	}
	score := staging.Fidelity(*r.Workload, s.intended(spec), cfg.Least)
	v.Weak = score.Weak
	v.Text += "; " + score.String()
	return v, nil
}

// intended is the workload here, as it would be with the change: that the policies differ until then is no mismatch.
func (s *server) intended(spec rollout.Spec) staging.Workload {
	w := s.reviewer.Workload()
	load, there := w.Routes[spec.Change.Route]
	if text, err := conf.MarshalJSON(spec.Change.To.Safe()); err == nil && there && spec.Version == "" {
		load.Settings = staging.Settings(text)
		w.Routes[spec.Change.Route] = load
	}
	return w
}
