package evidence

import "time"

// PostgresServer is what a PostgreSQL server is, and what the user who looks at it may see.
type PostgresServer struct {
	Version      int    `json:"version"` // as server_version_num: 150018
	User         string `json:"user"`
	Database     string `json:"database"`
	DatabaseOID  uint32 `json:"database_oid"`
	ReadAllStats bool   `json:"read_all_stats"` // the user sees what others do: pg_monitor, pg_read_all_stats or superuser
	Replica      bool   `json:"replica"`
	MaxConns     int    `json:"max_connections"`
	Reserved     int    `json:"reserved_connections"`
	QueryChars   int    `json:"track_activity_query_size"`
	IOTiming     bool   `json:"track_io_timing"`
	Statements   string `json:"pg_stat_statements_schema,omitempty"` // "" = not installed in this database
	Hypopg       string `json:"hypopg_schema,omitempty"`
	Gaps         []Gap  `json:"gaps,omitempty"` // what this user and this server cannot show, and how they could
}

// PostgresStatement is what a database says of one statement.
type PostgresStatement struct {
	Text       string           `json:"text"`         // as it was planned: place holders of drivers are $n
	Generic    bool             `json:"generic_plan"` // planned for unknown values; with known ones the plan may be another
	Plan       *Plan            `json:"plan,omitempty"`
	Matches    []Match          `json:"matches,omitempty"` // in pg_stat_statements
	Stats      []StatementStat  `json:"stats,omitempty"`   // of the matches, since the statistics began; one for each user
	SeqScans   []SeqScan        `json:"seq_scans,omitempty"`
	Indexes    []IndexCandidate `json:"index_candidates,omitempty"`
	Tables     []Table          `json:"tables,omitempty"`
	Rows       *RowEstimate     `json:"rows,omitempty"`
	Confidence float64          `json:"confidence"` // 0..1, that all this is about the span's statement
	Gaps       []Gap            `json:"gaps,omitempty"`
}

// RowEstimate compares what the planner expects of the whole statement with what it gave on average.
type RowEstimate struct {
	Estimated float64 `json:"estimated"`
	Observed  float64 `json:"observed"` // rows per call of pg_stat_statements, over all values and all time
	Factor    float64 `json:"factor"`   // how far they are apart, 1 and up
}

// Estimate sets Rows from the plan and the statistics; it leaves nil what cannot be compared.
func (s *PostgresStatement) Estimate() {
	calls, rows := 0.0, 0.0
	for _, x := range s.Stats {
		calls += x.Calls
		rows += x.Rows
	}
	if s.Plan == nil || calls == 0 {
		return
	}
	e := RowEstimate{Estimated: s.Plan.Result(), Observed: rows / calls}
	e.Factor = Factor(e.Estimated, e.Observed)
	s.Rows = &e
}

// MeanMS is the time that the server takes for one call, in milliseconds; ok is false where no statistics were read.
func (s *PostgresStatement) MeanMS() (mean float64, ok bool) {
	calls, total := 0.0, 0.0
	for _, x := range s.Stats {
		calls += x.Calls
		total += x.TotalMS
	}
	if calls == 0 {
		return 0, false
	}
	return total / calls, true
}

// Index is the candidate that saves most of the planner's cost; ok is false where no candidate was found to be used.
// Candidates that nobody tested count when no tested one would be used.
func (s *PostgresStatement) Index() (best IndexCandidate, ok bool) {
	for _, c := range s.Indexes {
		switch {
		case c.Refused != "" || c.Tested && !c.Used:
		case !ok, c.Gain() > best.Gain():
			best, ok = c, true
		}
	}
	return best, ok
}

// PostgresSessions is who is connected to a server, and who waits for whom.
type PostgresSessions struct {
	Facts    PostgresServer `json:"facts"`
	Sessions Sessions       `json:"sessions"`
	Chains   []LockChain    `json:"chains,omitempty"`
	Gaps     []Gap          `json:"gaps,omitempty"`
}

// PostgresIndexes is what the indexes of a database do.
type PostgresIndexes struct {
	Since       time.Time    `json:"since"` // of the statistics; zero = since the database was made
	Count       int          `json:"count"`
	Unused      []Index      `json:"unused,omitempty"`
	Duplicates  []Duplicate  `json:"duplicates,omitempty"`
	Invalid     []Index      `json:"invalid,omitempty"`
	ForeignKeys []ForeignKey `json:"foreign_keys_without_index,omitempty"`
	Gaps        []Gap        `json:"gaps,omitempty"`
	Replica     bool         `json:"replica,omitempty"`
}
