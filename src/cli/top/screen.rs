//! The live view: what is wrong, traffic over the last minutes, then limits, routes and servers, as far as they fit.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table};
use serde_json::Value;

use super::tables::{self, Rows};

/// Seconds that are drawn.
const DRAWN: usize = 300;
/// Rows that the page keys scroll.
const PAGE: usize = 10;

/// What is shown.
#[derive(Debug, Default)]
pub(super) struct Screen {
    overview: Option<Value>,
    requests: VecDeque<u64>,
    limited: VecDeque<u64>,
    /// Why the proxy does not answer.
    lost: Option<String>,
    paused: bool,
    /// Rows of the tables that are scrolled past.
    scrolled: usize,
}

impl Screen {
    /// A second has passed.
    pub(super) fn tell(&mut self, overview: Value) {
        self.lost = None;
        if self.paused {
            return;
        }
        for (list, name) in [(&mut self.requests, "requests_per_second"), (&mut self.limited, "limited_per_second")] {
            let value = overview["traffic"][name].as_f64().unwrap_or(0.0);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a bar's height")]
            list.push_back((value * 10.0).max(0.0) as u64);
            if list.len() > DRAWN {
                list.pop_front();
            }
        }
        self.overview = Some(overview);
    }

    /// The proxy does not answer.
    pub(super) fn lose(&mut self, error: &str) {
        self.lost = Some(error.to_owned());
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Down | KeyCode::Char('j') => self.scrolled += 1,
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::PageDown => self.scrolled += PAGE,
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(PAGE),
            KeyCode::Home => self.scrolled = 0,
            _ => {}
        }
    }

    /// Draws all of it.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let Some(overview) = self.overview.take() else {
            return frame.render_widget(Paragraph::new("waiting for the proxy …"), frame.area());
        };
        let problems = self.problems(&overview);
        let lines = u16::try_from(problems.len()).unwrap_or(u16::MAX).min(4);
        let rows =
            [1, lines, 1, 5].map(Constraint::Length).into_iter().chain([Constraint::Min(3), Constraint::Length(1)]);
        let [head, wrong, traffic, charts, body, foot] = Layout::vertical(rows).areas(frame.area());
        frame.render_widget(self.headline(&overview), head);
        frame.render_widget(Paragraph::new(problems), wrong);
        frame.render_widget(Paragraph::new(tables::traffic(&overview)), traffic);
        self.charts(frame, charts);
        self.tables(frame, body, &overview);
        frame.render_widget(Paragraph::new(tables::store(&overview)).dim(), foot);
        self.overview = Some(overview);
    }

    fn headline(&self, overview: &Value) -> Line<'static> {
        let keys = if self.paused { "  paused: p goes on" } else { "  q ends, p pauses, ↑↓ scroll" };
        Line::from(vec![Span::from(tables::headline(overview)).bold(), Span::from(keys).dim()])
    }

    fn problems(&self, overview: &Value) -> Vec<Line<'static>> {
        let lost = self.lost.iter().map(|error| format!("error: {error}"));
        let listed = lost.chain(tables::problems(overview));
        let coloured = |text: String| {
            let style = match text.split(':').next() {
                Some("error") => Style::new().red().bold(),
                Some("warning") => Style::new().yellow(),
                _ => Style::new().cyan(),
            };
            Line::styled(text, style)
        };
        listed.map(coloured).collect()
    }

    fn charts(&self, frame: &mut Frame<'_>, area: Rect) {
        let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(area);
        for (area, title, list, style) in [
            (left, "requests/s", &self.requests, Style::new().green()),
            (right, "limited/s", &self.limited, Style::new().light_red()),
        ] {
            let seen = list.iter().skip(list.len().saturating_sub(usize::from(area.width)));
            let block = Block::new().title(Span::from(title).dim());
            frame.render_widget(Sparkline::default().block(block).data(seen.copied()).style(style), area);
        }
    }

    /// The tables one below the other, as one list that scrolls.
    fn tables(&mut self, frame: &mut Frame<'_>, area: Rect, overview: &Value) {
        let all = [tables::limits(overview), tables::routes(overview), tables::servers(overview)];
        let rows: usize = all.iter().map(|rows| rows.list.len() + 2).sum();
        self.scrolled = self.scrolled.min(rows.saturating_sub(usize::from(area.height)));
        let (mut skip, mut top) = (self.scrolled, area.y);
        for rows in all {
            let height = rows.list.len() + 2;
            let left = area.bottom().saturating_sub(top);
            if skip >= height || left == 0 {
                skip = skip.saturating_sub(height);
                continue;
            }
            let shown = u16::try_from(height - skip).unwrap_or(u16::MAX).min(left);
            frame.render_widget(drawn(&rows, skip), Rect { y: top, height: shown, ..area });
            (skip, top) = (0, top + shown);
        }
    }
}

/// One table without its first rows.
fn drawn(rows: &Rows, skip: usize) -> Table<'static> {
    let width = |column: usize| {
        let cells = rows.list.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        let widest = cells.chain([rows.head[column].chars().count()]).max().unwrap_or(0);
        Constraint::Length(u16::try_from(widest).unwrap_or(u16::MAX).min(48))
    };
    let is_text = |column: usize| column == 0 || rows.left.contains(&column);
    let cell = |column: usize, text: &str| {
        let line = Line::from(text.to_owned());
        Cell::from(if is_text(column) { line } else { line.right_aligned() })
    };
    let head = Row::new(rows.head.iter().enumerate().map(|(column, text)| cell(column, text)));
    let listed = rows.list.iter().map(|row| {
        let alarming = row.iter().enumerate().any(|(column, text)| is_alarming(rows, column, text));
        let row = Row::new(row.iter().enumerate().map(|(column, text)| cell(column, text)));
        if alarming { row.style(Style::new().light_red()) } else { row }
    });
    let table = Table::new(listed.skip(skip), (0..rows.head.len()).map(width))
        .header(head.style(Style::new().add_modifier(Modifier::DIM)))
        .column_spacing(2);
    table.block(Block::new().title(Span::from(rows.title).bold()))
}

/// Whether a cell is what people look for: denials, errors, servers that are away.
fn is_alarming(rows: &Rows, column: usize, text: &str) -> bool {
    match rows.head[column] {
        "denied/s" | "limited/s" | "errors/s" => text != "0",
        "state" => text != "healthy",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    fn overview(problems: &Value) -> Value {
        json!({
            "version": "1.2.3", "uptime_seconds": 90, "workers": 2, "problems": problems,
            "traffic": { "requests_per_second": 12.0, "limited_per_second": 3.5, "added_ms": { "p50": 0.2, "p99": null } },
            "limits": [{ "name": "login", "mode": "enforce", "decisions_per_second": 9.0, "denied_per_second": 3.5,
                "shadow_per_second": 0.0, "top_key": { "key": "ip=192.0.2.7", "denied": 41 } }],
            "routes": [{ "name": "login", "limits": ["global", "login"], "upstream": "api", "requests_per_second": 9.0 }],
            "upstreams": [{ "name": "api", "servers": [{ "name": "10.0.0.1:80", "state": "draining", "in_flight": 2 }] }],
            "store": { "kind": "redis", "place": "redis://r", "up": false },
        })
    }

    fn drawn(screen: &mut Screen, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(110, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn what_is_wrong_stands_above_everything_else() {
        let mut screen = Screen::default();
        assert!(drawn(&mut screen, 30).contains("waiting for the proxy"));
        screen.tell(overview(&json!([{ "severity": "error", "kind": "store_down", "message": "The store is away." }])));
        let text = drawn(&mut screen, 30);
        let order = [
            "tollgate 1.2.3",
            "error: The store is away.",
            "requests 12/s",
            "ip=192.0.2.7 ×41",
            "global → login",
            "draining",
            "does not answer",
        ];
        let places: Vec<_> =
            order.iter().map(|part| text.find(part).unwrap_or_else(|| panic!("{part} in\n{text}"))).collect();
        assert!(places.is_sorted(), "{places:?} in\n{text}");
        screen.lose("nobody answers");
        assert!(drawn(&mut screen, 30).contains("error: nobody answers"));
    }

    #[test]
    fn a_small_terminal_scrolls_and_a_pause_holds() {
        let mut screen = Screen::default();
        screen.tell(overview(&json!([])));
        assert!(!drawn(&mut screen, 13).contains("draining"));
        (0..50).for_each(|_| screen.press(KeyCode::Down));
        assert!(drawn(&mut screen, 13).contains("draining"));
        screen.press(KeyCode::Home);
        screen.press(KeyCode::Char('p'));
        screen.tell(overview(&json!([{ "severity": "error", "message": "unseen" }])));
        assert!(!drawn(&mut screen, 30).contains("unseen"));
        for size in [1, 2, 5] {
            drawn(&mut screen, size);
        }
    }
}
