package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/longpole/longpole/internal/rollout"
	"github.com/longpole/longpole/internal/store"
)

const (
	rolloutStream = "rollouts"
	journalWait   = 5 * time.Second // longest that a decision waits for the disk
	journalPage   = 1000
)

// journal keeps the decisions of rollouts in the store.
type journal struct{ store *store.Store }

// Append implements rollout.Journal.
func (j journal) Append(e rollout.Entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), journalWait)
	defer cancel()
	_, err = j.store.Append(ctx, e.At, rolloutStream, data)
	return err
}

// read is all that is there, oldest first.
func (j journal) read(ctx context.Context) (all []rollout.Entry, err error) {
	err = each(ctx, j.store, rolloutStream, func(data []byte) error {
		var e rollout.Entry
		if err := json.Unmarshal(data, &e); err != nil {
			return err
		}
		all = append(all, e)
		return nil
	})
	return all, err
}

// each calls with for every entry of a stream, oldest first, until it errs.
func each(ctx context.Context, s *store.Store, stream string, with func(data []byte) error) error {
	for after := int64(0); ; {
		page, err := s.Entries(ctx, stream, after, journalPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, line := range page {
			if err := with(line.Data); err != nil {
				return fmt.Errorf("the journal of %s, entry %d: %w", stream, line.Seq, err)
			}
		}
		after = page[len(page)-1].Seq
	}
}
