package probe

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/longpole/longpole/internal/evidence"
	"github.com/longpole/longpole/internal/review"
)

// TestWhatAReviewSaysOfADatabase: a table grew, its index went, another one serves nobody. Two reviews, a fortnight apart by their
// own clocks, see it in what the probe read.
func TestWhatAReviewSaysOfADatabase(t *testing.T) {
	// Pages are a tenth full: large for the statistics, and small for the machine.
	const grow = "insert into orders (customer, note) select i % 5000, md5(i::text) || md5(i::text || 'x') from generate_series(1, $1::int) i"
	database(t, "aged", true, "create table orders (id serial primary key, customer int, note text) with (fillfactor = 10)", strings.ReplaceAll(grow, "$1", "'35000'"),
		"create index orders_customer on orders (customer)", "create index orders_note on orders (note) with (fillfactor = 10)", "analyze orders", "select pg_stat_reset()")
	source := &postgresSource{name: "aged", reader: collector(t, "postgres", "aged"), budget: Budget{}}
	const asked = "select count(note) from orders where customer = $1"
	survey := review.NewSurvey()
	began := time.Now()
	windows := 0
	window := func() {
		t.Helper()
		add, err := source.collect(t.Context(), time.Millisecond, func() []Query { return []Query{{Text: asked}} })
		if err != nil {
			t.Fatal(err)
		}
		windows++
		f := evidence.Facts{From: began.Add(time.Duration(windows) * time.Minute), To: began.Add(time.Duration(windows+1) * time.Minute)}
		add(&f)
		for i := range f.Postgres[0].Tables {
			if x := &f.Postgres[0].Tables[i]; !x.Analyzed.IsZero() {
				x.Analyzed = f.From // by the same clock
			}
		}
		survey.Observe(f)
	}
	ended := func(app *pgx.Conn) { // its counts are told when the server's side of it ends, a moment after ours
		t.Helper()
		pid := app.PgConn().PID()
		if err := app.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
		onlooker := session(t, "postgres", "postgres", "onlooker")
		for there := true; there; {
			if err := onlooker.QueryRow(t.Context(), "select exists (select from pg_stat_activity where pid = $1)", pid).Scan(&there); err != nil {
				t.Fatal(err)
			}
		}
		onlooker.Close(t.Context())
	}
	work := func() {
		app := session(t, "postgres", "aged", "shop")
		for i := range 120 {
			run(t, app, asked, i)
		}
		ended(app)
	}
	window()
	work()
	window()
	first := review.Run(review.Input{Now: began.Add(time.Hour), Systems: survey.Systems()})
	if len(first.Findings) != 0 {
		t.Errorf("the first review has nothing to compare with: %+v", first.Findings)
	}
	survey.Turn()
	survey.Turn()
	admin := session(t, "postgres", "aged", "migration")
	run(t, admin, "drop index orders_customer")
	run(t, admin, grow, 14000)
	run(t, admin, "analyze orders")
	ended(admin)
	work()
	windows += 14 * 24 * 60
	window()
	second := review.Run(review.Input{Now: began.Add(15 * 24 * time.Hour), Systems: survey.Systems(), Last: &first})
	for code, says := range map[string]string{
		"LP318": "MiB on orders was used by no scan in 1", // 14 or 15 days
		"LP319": "and is Aggregate(Seq Scan orders)",
		"LP323": "k rows on ",
	} {
		i := slices.IndexFunc(second.Findings, func(f review.Finding) bool { return f.Code == code })
		if i < 0 || code != "LP323" && !strings.Contains(second.Findings[i].Detail, says) {
			t.Errorf("%s: %+v", code, second.Findings)
			continue
		}
		if f := second.Findings[i]; code == "LP323" && (f.Severity != review.Warning || !strings.Contains(f.Detail, "+40 %") || !strings.Contains(f.Detail, "It was read from end to end 1")) {
			t.Errorf("%+v", f)
		}
	}
}
