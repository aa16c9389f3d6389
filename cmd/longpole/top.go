package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/longpole/longpole/internal/gateway"
)

const topLong = `Watch the routes of a running gateway, worst p99 first, until q is pressed. Arrows or j and k move, enter shows the endpoints
of a route and esc goes back, / filters by name, s changes the order, ? helps. Where standard output is no terminal it prints
the table anew every interval.`

func newTop() *cobra.Command {
	var c adminClient
	var every time.Duration
	var once bool
	cmd := &cobra.Command{
		Use:   "top [--interval TIME] [--once]",
		Short: "Watch the routes and endpoints of a running gateway",
		Long:  topLong,
		Example: `  longpole top
  longpole top --once | head`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return usagef("want 100ms or more", "--interval %s is too short", every)
			}
			if once || !isTerminal(cmd.OutOrStdout()) {
				return c.topLines(cmd.Context(), cmd.OutOrStdout(), every, once)
			}
			m := &topModel{ctx: cmd.Context(), fetch: c.routes, every: every, base: c.base}
			_, err := tea.NewProgram(m, tea.WithContext(cmd.Context()), tea.WithInput(cmd.InOrStdin()), tea.WithOutput(cmd.OutOrStdout())).Run()
			if m.fatal != nil {
				return m.fatal
			}
			return err
		},
	}
	c.flags(cmd.Flags())
	cmd.Flags().DurationVar(&every, "interval", time.Second, "`TIME` between two looks")
	cmd.Flags().BoolVar(&once, "once", false, "print the table once")
	return cmd
}

// topLines is top for pipes and files.
func (c *adminClient) topLines(ctx context.Context, w io.Writer, every time.Duration, once bool) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		list, err := c.routes(ctx)
		if err != nil {
			return err
		}
		topOrders[0].sort(list.Routes)
		table(w, routeRows(list.Routes))
		if once {
			return nil
		}
		fmt.Fprintln(w)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// topOrder is a way to sort the routes.
type topOrder struct {
	name string
	key  func(*gateway.RouteStatus) float64 // larger first; nil = by name
}

var topOrders = []topOrder{
	{"p99", func(r *gateway.RouteStatus) float64 { return r.LatencyMS.P99 }},
	{"errors", func(r *gateway.RouteStatus) float64 { return r.ErrorRatio }},
	{"calls per second", func(r *gateway.RouteStatus) float64 { return r.RPS }},
	{"name", nil},
}

func (o topOrder) sort(all []gateway.RouteStatus) {
	slices.SortStableFunc(all, func(a, b gateway.RouteStatus) int {
		if o.key != nil {
			if x, y := o.key(&a), o.key(&b); x > y {
				return -1
			} else if x < y {
				return 1
			}
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// topModel is what the screen shows. The program calls it from one goroutine.
type topModel struct {
	ctx    context.Context
	fetch  func(context.Context) (routeList, error)
	every  time.Duration
	base   string
	fatal  error // ends the program: the first look failed
	height int
	width  int

	list    routeList
	at      time.Time
	err     error // of the last look
	seen    bool  // one look succeeded
	order   int
	cursor  int
	open    string // the route whose endpoints are shown; "" = all routes
	filter  string
	editing bool // keys go to the filter
	help    bool
}

// looked is the result of one look.
type looked struct {
	list routeList
	err  error
	at   time.Time
}

type again struct{}

// Init starts the first look.
func (m *topModel) Init() tea.Cmd { return m.look }

func (m *topModel) look() tea.Msg {
	list, err := m.fetch(m.ctx)
	return looked{list, err, time.Now()}
}

// Update takes a key, a look or a new size.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case looked:
		if m.err = msg.err; msg.err == nil {
			m.list, m.at, m.seen = msg.list, msg.at, true
		} else if !m.seen {
			m.fatal = msg.err
			return m, tea.Quit
		}
		return m, tea.Tick(m.every, func(time.Time) tea.Msg { return again{} })
	case again:
		return m, m.look
	case tea.KeyPressMsg:
		return m, m.key(msg.String(), msg.Text)
	}
	return m, nil
}

func (m *topModel) key(name, text string) tea.Cmd {
	if m.editing {
		m.edit(name, text)
		return nil
	}
	switch name {
	case "q", "ctrl+c":
		return tea.Quit
	case "up", "k":
		m.cursor--
	case "down", "j":
		m.cursor++
	case "home", "g":
		m.cursor = 0
	case "end", "G":
		m.cursor = len(m.shown()) - 1
	case "s":
		m.order, m.cursor = (m.order+1)%len(topOrders), 0
	case "/":
		m.editing, m.open = true, ""
	case "?":
		m.help = !m.help
	case "enter":
		if shown := m.shown(); m.open == "" && m.cursor < len(shown) {
			m.open = shown[m.cursor].Name
		}
	case "esc":
		if m.open != "" {
			m.open = ""
		} else {
			m.filter, m.help = "", false
		}
	}
	m.cursor = max(0, min(m.cursor, len(m.shown())-1))
	return nil
}

func (m *topModel) edit(name, text string) {
	switch name {
	case "enter":
		m.editing = false
	case "esc", "ctrl+c":
		m.editing, m.filter = false, ""
	case "backspace":
		if r := []rune(m.filter); len(r) > 0 {
			m.filter = string(r[:len(r)-1])
		}
	default:
		if len(m.filter)+len(text) <= 64 {
			m.filter += text
		}
	}
	m.cursor = 0
}

// shown is the routes that pass the filter, in order.
func (m *topModel) shown() []gateway.RouteStatus {
	var all []gateway.RouteStatus
	for _, r := range m.list.Routes {
		if strings.Contains(strings.ToLower(r.Name), strings.ToLower(m.filter)) {
			all = append(all, r)
		}
	}
	topOrders[m.order].sort(all)
	return all
}

var (
	topTitle  = lipgloss.NewStyle().Bold(true)
	topChosen = lipgloss.NewStyle().Reverse(true)
	topFaint  = lipgloss.NewStyle().Faint(true)
)

// View draws the screen.
func (m *topModel) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	v.WindowTitle = "longpole top"
	return v
}

const topHelp = `up, k / down, j  move          enter  endpoints of the route     esc  back
/  filter by name             s  change the order                q  quit`

func (m *topModel) screen() string {
	if !m.seen {
		return "asking " + m.base + " …"
	}
	var b strings.Builder
	b.WriteString(topTitle.Render(m.title()) + "\n")
	if m.help {
		b.WriteString(topFaint.Render(topHelp) + "\n")
	}
	b.WriteByte('\n')
	chosen := m.cursor
	rows := routeRows(m.shown())
	if m.open != "" {
		rows, chosen = endpointRows(only(m.list.Routes, m.open)), -1
	}
	var text strings.Builder
	table(&text, rows)
	for i, line := range window(strings.Split(strings.TrimRight(text.String(), "\n"), "\n"), chosen+1, m.height-strings.Count(b.String(), "\n")-2) {
		if m.width > 1 {
			line.text = cut(line.text, m.width)
		}
		switch {
		case i == 0:
			line.text = topFaint.Render(line.text)
		case line.index == chosen+1:
			line.text = topChosen.Render(line.text)
		}
		b.WriteString(line.text + "\n")
	}
	switch {
	case m.editing:
		b.WriteString("\n/" + m.filter + "▏")
	case m.err != nil:
		b.WriteString("\n" + topTitle.Render("no news since "+m.at.Format(time.TimeOnly)+": ") + plain(m.err))
	default:
		b.WriteString("\n" + topFaint.Render("? help   q quit"))
	}
	return b.String()
}

func (m *topModel) title() string {
	t := fmt.Sprintf("longpole %s  %s  %s  by %s", m.list.Version, m.base, m.at.Format(time.TimeOnly), topOrders[m.order].name)
	if m.open != "" {
		return t + "  endpoints of " + m.open
	}
	if m.filter != "" {
		return t + "  /" + m.filter
	}
	return t
}

type topLine struct {
	text  string
	index int
}

// window is the heading and as many of the other lines as fit, with the chosen one among them.
func window(all []string, chosen, height int) []topLine {
	lines := []topLine{{all[0], 0}}
	room := max(height-1, 1)
	from := max(1, min(chosen-room/2, len(all)-room))
	for i := from; i < len(all) && i < from+room; i++ {
		lines = append(lines, topLine{all[i], i})
	}
	return lines
}
