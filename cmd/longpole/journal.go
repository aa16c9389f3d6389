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
	for after := int64(0); ; {
		page, err := j.store.Entries(ctx, rolloutStream, after, journalPage)
		if err != nil || len(page) == 0 {
			return all, err
		}
		for _, line := range page {
			var e rollout.Entry
			if err := json.Unmarshal(line.Data, &e); err != nil {
				return nil, fmt.Errorf("the journal of rollouts, entry %d: %w", line.Seq, err)
			}
			all = append(all, e)
		}
		after = page[len(page)-1].Seq
	}
}
