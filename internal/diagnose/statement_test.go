package diagnose

import "testing"

func TestStatementsThatReadAndThatWrite(t *testing.T) {
	for _, c := range []struct {
		sql           string
		reads, writes bool
	}{
		{"SELECT a FROM b", true, false},
		{"select a from b where c = 7", true, false},
		{" \n(SELECT a FROM b)", true, false},
		{"SELECT a FROM b WHERE c = $1", false, false},
		{"SELECT a FROM b FOR UPDATE", false, false},
		{"sel", false, false},
		{"SHOW tables", false, false},
		{"", false, false},
		{"INSERT INTO b VALUES (1)", false, true},
		{" insert into b values (1)", false, true},
		{"(UPDATE b SET c = 1)", false, true},
		{"/* app:shop */ DELETE FROM b", false, true},
		{"-- who asks\n/* why */ (select a from b)", true, false},
		{"/* never closed DELETE FROM b", false, false},
		{"/**/", false, false},
		{"--", false, false},
		{"/* a */ -- b", false, false},
		{"Merge INTO b", false, true},
		{"replace into b", false, true},
		{"upsert into b", false, true},
		{"inserted", false, false},
		{"HGETALL cart:1", false, false},
		{"mget a b", false, false},
		{"\u00fcpdate b", false, false},
		{"...", false, false},
	} {
		if got := isRead(c.sql); got != c.reads {
			t.Errorf("%q reads: %v", c.sql, got)
		}
		if got := changesRows(c.sql); got != c.writes {
			t.Errorf("%q writes: %v", c.sql, got)
		}
	}
}
