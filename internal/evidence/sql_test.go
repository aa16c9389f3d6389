package evidence

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFingerprintsForgetValuesOnly(t *testing.T) {
	for _, same := range [][]string{
		{
			"select * from t where a = 1 and b = 'x'", "SELECT *\n FROM t -- all\n WHERE a = $1 AND b = $2;", "select * from t where a = -17 and b = E'it\\'s'",
			"select/* x /* y */ z */ * from t where a = ? and b = %s", "select * from t where a = :id and b = $tag$ ; $tag$", "select * from t where a=1e-5 and b=0x1f",
		},
		{"select * from t where a in (1, 2, 3)", "select * from t where a in ($1)", "select * from t where a in (?, ?)", "select * from t where a in (-1, +2)"},
		{"select a - 1 from t", "select a - $1 from t", "select a -1 from t"},
		{`select "A" from t`, `SELECT "A" FROM T`},
		{"select a ? 'k' from t", "select a ? $1 from t"},
	} {
		want, _ := Fingerprint(same[0])
		for _, s := range same[1:] {
			if got, _ := Fingerprint(s); got != want {
				t.Errorf("%q is\n%s, want\n%s", s, got, want)
			}
		}
	}
	for _, pair := range [][2]string{
		{"select a from t", "select b from t"},
		{`select "A" from t`, `select "a" from t`},
		{"select a from t where b = 1", "select a from t where b > 1"},
		{"select a - 1 from t", "select a, -1 from t"},
		{"select f(1, 2)", "select f(1)"},
		{"insert into t values (1, 2)", "insert into t values (1)"},
		{"select a from t limit 1", "select a from t"},
	} {
		a, _ := Fingerprint(pair[0])
		if b, _ := Fingerprint(pair[1]); a == b {
			t.Errorf("%q and %q are both %s", pair[0], pair[1], a)
		}
	}
	for s, want := range map[string]bool{"select 'abc": true, "select a from t...": true, "select a /* b": true, "select a from t": false} {
		if _, cut := Fingerprint(s); cut != want {
			t.Errorf("%q cut: %v", s, cut)
		}
	}
}

func TestWhatMayBePlanned(t *testing.T) {
	for s, want := range map[string]Statement{
		"select 1":                                           {Text: "select 1"},
		" SELECT 1 ; ; ":                                     {Text: "SELECT 1"},
		"update t set a = $2 where b = $1":                   {Text: "update t set a = $2 where b = $1", Params: 2},
		"select * from t where a = ? and b in (?)":           {Text: "select * from t where a = $1 and b in ($2)", Params: 2, Marks: true},
		"insert into t values (%s, %s)":                      {Text: "insert into t values ($1, $2)", Params: 2, Marks: true},
		"select :id::int, a::text from t":                    {Text: "select $1::int, a::text from t", Params: 1, Marks: true},
		"select doc ? 'k', doc @? '$.a' from t":              {Text: "select doc ? 'k', doc @? '$.a' from t"},
		"select ';' /* ; */ -- ;":                            {Text: "select ';' /* ; */ -- ;"},
		"select (select max(a) into_ from t)":                {Text: "select (select max(a) into_ from t)"},
		"with x as (select 1) insert into t select * from x": {Text: "with x as (select 1) insert into t select * from x"},
	} {
		if got, err := ParseStatement(s); err != nil || got != want {
			t.Errorf("%q: %+v %v, want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", ";", "drop table t", "select 1; select 2", "explain select 1", "(select 1)", "values (1)", "table t", "select 1 into t", "select a from t where b = $1 and c = ?",
		"select 'a", "select \"a", "select /* a", "select $x$ a", "select \x00", "select \xff", "select $0", "select $99999", strings.Repeat("select ", MaxStatement), "copy t to stdout",
		"select a from t where b = ...", "select a from t where …", "begin", "listen x", "-- select 1",
	} {
		if _, err := ParseStatement(s); !errors.Is(err, ErrStatement) {
			t.Errorf("%.40q: %v", s, err)
		}
	}
}

func TestACutTextMatchesOneStatementOrNone(t *testing.T) {
	list := []StatementStat{
		{QueryID: 1, Text: "select id, customer_id, total from orders where customer_id = $1 and status = $2"},
		{QueryID: 2, Text: "select id, customer_id, total from orders where total > $1"},
		{QueryID: 3, Text: "select id from items where order_id = $1"},
		{QueryID: 3, User: 7, Text: "select id from items where order_id = $1"},
		{QueryID: 4},
	}
	for s, want := range map[string][]Match{
		"SELECT id FROM items WHERE order_id = 9":                                {{3, "text", 0.9}},
		"select id, customer_id, total from orders where customer_id = 4 and...": {{1, "prefix", 0.5}},
		"select id, customer_id, total from orders where ...":                    nil,
		"select id...":             nil,
		"select id from elsewhere": nil,
		"":                         nil,
	} {
		got := MatchText(s, list)
		if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("%q: %+v, want %+v", s, got, want)
		}
	}
}

func FuzzStatement(f *testing.F) {
	for _, s := range []string{"select * from t where a = ? and b in (1, 2)", "select $tag$ $tag$, e'\\'', U&'x' ; --", "with a as (select 1) delete from t", "((a.b = 1) AND (lower((c)::text) = 'x'::text))", "/* /* */"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, cut := Fingerprint(s)
		if b, _ := Fingerprint(" /* x */" + s + "\n-- y"); !cut && len(s) < MaxStatement/2 && a != b && utf8.ValidString(s) {
			t.Errorf("%q is %q, and with comments around it %q", s, a, b)
		}
		if p, err := ParseStatement(s); err == nil && !p.Marks && p.Text != strings.TrimSpace(p.Text) {
			t.Errorf("%q gives %+v", s, p)
		}
		conditions(s)
		list(s)
		KeyShape(s)
	})
}
