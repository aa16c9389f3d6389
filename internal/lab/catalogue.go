package lab

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/longpole/longpole/internal/servers"
)

// Categories are the catalogue's, most asked for first.
var Categories = []string{"books", "music", "garden", "kitchen", "toys", "sport", "shoes", "tools", "office", "travel", "health", "art"}

// Seller is a product and what was taken for it.
type Seller struct {
	Product string `json:"product"`
	Cents   int64  `json:"cents"`
}

// The two ways to the same answer. Sales have no index on category, on purpose: the scan is the planted problem, and
// the summary, filled when the table is built, is its cure at the source.
const (
	scanQuery    = `SELECT product, SUM(quantity * cents) AS taken FROM sale WHERE category = ? GROUP BY product ORDER BY taken DESC, product LIMIT 20`
	summaryQuery = `SELECT product, taken FROM best_seller WHERE category = ? ORDER BY taken DESC, product`
)

const schema = `
CREATE TABLE sale (id INTEGER PRIMARY KEY, category TEXT NOT NULL, product TEXT NOT NULL, quantity INTEGER NOT NULL, cents INTEGER NOT NULL);
CREATE TABLE category (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE best_seller (category TEXT NOT NULL, taken INTEGER NOT NULL, product TEXT NOT NULL, PRIMARY KEY (category, taken DESC, product)) WITHOUT ROWID;`

// The arithmetic spreads rows over categories, products and prices without a random source: same rows, same table.
const fill = `
INSERT INTO sale SELECT i, name, 'product-' || (i * 104729 % 997), 1 + i % 5, 100 + i * 31337 % 9900
FROM (WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ? - 1) SELECT i FROM n)
JOIN category ON category.id = i * 7919 % (SELECT COUNT(*) FROM category)`

const summarise = `
INSERT INTO best_seller SELECT category, taken, product FROM (
	SELECT category, product, taken, ROW_NUMBER() OVER (PARTITION BY category ORDER BY taken DESC, product) AS place
	FROM (SELECT category, product, SUM(quantity * cents) AS taken FROM sale GROUP BY category, product)
) WHERE place <= 20`

// catalogue is the database of one lab, in a folder of its own that Close removes.
type catalogue struct {
	db     *sql.DB
	folder *servers.Folder
}

func openCatalogue(ctx context.Context, rows int) (c *catalogue, err error) {
	folder, err := servers.NewFolder("lab")
	if err != nil {
		return nil, fmt.Errorf("lab: catalogue: %w", err)
	}
	c = &catalogue{folder: folder}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("lab: catalogue: %w", err), c.close())
		}
	}()
	// Nothing here outlives the process, so nothing needs to survive a crash.
	dsn := "file:" + filepath.Join(folder.Path(), "catalogue.db") + "?_pragma=journal_mode(off)&_pragma=synchronous(off)"
	if c.db, err = sql.Open("sqlite", dsn); err != nil {
		return nil, err
	}
	c.db.SetMaxOpenConns(8)
	c.db.SetMaxIdleConns(8)
	if _, err = c.db.ExecContext(ctx, schema); err != nil {
		return nil, err
	}
	for i, name := range Categories {
		if _, err = c.db.ExecContext(ctx, `INSERT INTO category VALUES (?, ?)`, i, name); err != nil {
			return nil, err
		}
	}
	if _, err = c.db.ExecContext(ctx, fill, rows); err != nil {
		return nil, err
	}
	_, err = c.db.ExecContext(ctx, summarise)
	return c, err
}

func (c *catalogue) close() error {
	var err error
	if c.db != nil {
		err = c.db.Close()
	}
	return errors.Join(err, c.folder.Remove())
}

func (c *catalogue) best(ctx context.Context, query, category string) ([]Seller, error) {
	rows, err := c.db.QueryContext(ctx, query, category)
	if err != nil {
		return nil, fmt.Errorf("lab: catalogue: %w", err)
	}
	defer rows.Close()
	best := make([]Seller, 0, 20)
	for rows.Next() {
		var s Seller
		if err := rows.Scan(&s.Product, &s.Cents); err != nil {
			return nil, fmt.Errorf("lab: catalogue: %w", err)
		}
		best = append(best, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("lab: catalogue: %w", err)
	}
	return best, nil
}

// catalogue answers GET /catalogue/{category}.
func (s *service) catalogue(mux *http.ServeMux, c *catalogue) {
	s.handle(mux, "/catalogue/{category}", func(ctx context.Context, r *http.Request) (any, error) {
		best, err := s.read(ctx, c, r.PathValue("category"))
		if err == nil && len(best) == 0 {
			return nil, &failure{status: http.StatusNotFound, reason: "no such category"}
		}
		return best, err
	})
}

// read makes one database read with its span. The simulated disk is waited for after the rows are read and their
// connection is free again, so that the wait cannot turn into a shortage of connections.
func (s *service) read(ctx context.Context, c *catalogue, category string) ([]Seller, error) {
	query, table := summaryQuery, "best_seller"
	scan, scanning := s.faults.hits(s, FullScan)
	if scanning {
		query, table = scanQuery, "sale"
	}
	ctx, x := s.process.begin(ctx, trace.SpanKindClient, "SELECT "+table, 0)
	defer x.end()
	x.set(semconv.DBSystemNameSQLite, semconv.DBNamespace("catalogue"), semconv.DBOperationName("SELECT"),
		semconv.DBCollectionName(table), semconv.DBQueryText(query), semconv.DBQueryParameter("0", category))
	best, err := c.best(ctx, query, category)
	if err != nil {
		x.fail("query")
		return nil, err
	}
	x.set(semconv.DBResponseReturnedRows(len(best)))
	if scanning {
		wait := s.random.draw(Lognormal{scan.Min, scan.Max})
		x.set(attribute.Float64("lab.simulated_wait_ms", math.Round(float64(wait)/1e5)/10))
		if err := pause(ctx, wait); err != nil {
			return nil, err
		}
	}
	return best, nil
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }
