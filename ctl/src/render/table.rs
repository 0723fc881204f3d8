//! Tables without borders, one line per row, fitted to the terminal: flexible columns give way first, with an ellipsis.

use comfy_table::{Cell as Drawn, Color, ColumnConstraint, ContentArrangement, Row, Table as Drawing, Width, presets};

#[derive(Clone, Debug)]
pub(crate) struct Column {
    title: &'static str,
    flexible: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Busy,
    Bad,
}

pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// A column as wide as its content.
pub(crate) fn column(title: &'static str) -> Column {
    Column { title, flexible: false }
}

/// A column that gives way when the terminal is narrow.
pub(crate) fn flexible(title: &'static str) -> Column {
    Column { title, flexible: true }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        let text: String = text.into();
        // One row is one line, and nothing in it may steer the terminal.
        let text = text.replace(|c: char| c.is_control(), " ");
        Self { text: if text.is_empty() { "-".to_owned() } else { text }, tone: Tone::Plain }
    }
}

impl Cell {
    /// A phase, a condition's status or an event's type, coloured by what it means.
    pub(crate) fn state(text: &str) -> Self {
        Self { tone: tone(text), ..Self::from(text) }
    }
}

pub(crate) fn tone(state: &str) -> Tone {
    match state {
        "Running" | "True" | "held" | "Ready" | "Completed" | "Confirmed" => Tone::Good,
        "Pending" | "Provisioning" | "Starting" | "Stopping" | "Deleting" | "Backoff" | "Degraded" | "Warning" | "Unknown" | "Intended" => Tone::Busy,
        "Failed" | "Crashed" | "Broken" | "taken" | "False" | "RolledBack" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// `text` in the tone's colour.
pub(crate) fn paint(text: &str, tone: Tone, color: bool) -> String {
    use owo_colors::OwoColorize;
    match tone {
        _ if !color => text.to_owned(),
        Tone::Plain => text.to_owned(),
        Tone::Good => text.green().to_string(),
        Tone::Busy => text.yellow().to_string(),
        Tone::Bad => text.red().to_string(),
    }
}

impl Table {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// `width`: of the terminal; None: as wide as it gets.
    pub(crate) fn render(&self, width: Option<u16>, color: bool) -> String {
        self.render_padded(&[], width, color)
    }

    /// With its header, and columns at least as wide as `widths`: rows will follow.
    pub(crate) fn render_padded(&self, widths: &[u16], width: Option<u16>, color: bool) -> String {
        let header: Vec<Cell> = self.columns.iter().map(|column| Cell::from(column.title)).collect();
        self.draw(Some(header), widths, width, color)
    }

    /// The rows alone, at least as wide as `widths`: for rows that follow a table later.
    pub(crate) fn render_rows(&self, widths: &[u16], width: Option<u16>, color: bool) -> String {
        self.draw(None, widths, width, color)
    }

    /// Width of each column's content, its title included.
    pub(crate) fn widths(&self) -> Vec<u16> {
        let title = |i: usize| self.columns[i].title.len();
        let widest = |i: usize| self.rows.iter().map(|row| row[i].text.chars().count()).max().unwrap_or(0);
        (0..self.columns.len()).map(|i| u16::try_from(title(i).max(widest(i))).unwrap_or(u16::MAX)).collect()
    }

    fn draw(&self, header: Option<Vec<Cell>>, least: &[u16], width: Option<u16>, color: bool) -> String {
        let mut drawing = Drawing::new();
        drawing.load_style(presets::NOTHING).set_truncation_indicator("…");
        if color {
            drawing.enforce_styling();
        } else {
            drawing.force_no_tty();
        }
        let rows = header.iter().chain(&self.rows);
        for cells in rows {
            let mut row = Row::new();
            for cell in cells {
                row.add_cell(drawn(cell, color));
            }
            row.max_height(1);
            drawing.add_row(row);
        }
        match width {
            None => drawing.set_content_arrangement(ContentArrangement::Disabled),
            Some(width) => drawing.set_width(width).set_content_arrangement(ContentArrangement::Dynamic),
        };
        let mut content = drawing.column_max_content_widths();
        content.iter_mut().zip(least).for_each(|(own, least)| *own = (*own).max(*least));
        let gaps = u16::try_from(self.columns.len()).unwrap_or(u16::MAX).saturating_mul(2);
        let rigid: u16 = content.iter().zip(&self.columns).filter(|(_, column)| !column.flexible).map(|(own, _)| own.saturating_add(0)).sum();
        let loose = u16::try_from(self.columns.iter().filter(|column| column.flexible).count()).unwrap_or(0).saturating_mul(8);
        // When even the rigid columns do not fit, all of them must give way.
        let fits = width.is_none_or(|width| rigid.saturating_add(gaps).saturating_add(loose) <= width);
        for (column, (drawn, content)) in self.columns.iter().zip(drawing.column_iter_mut().zip(content)) {
            drawn.set_padding((0, 2));
            if fits && !column.flexible {
                drawn.set_constraint(ColumnConstraint::Absolute(Width::Fixed(content.saturating_add(2))));
            }
        }
        let lines: Vec<String> = drawing.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

fn drawn(cell: &Cell, color: bool) -> Drawn {
    let drawn = Drawn::new_owned(cell.text.clone());
    match cell.tone {
        _ if !color => drawn,
        Tone::Plain => drawn,
        Tone::Good => drawn.fg(Color::Green),
        Tone::Busy => drawn.fg(Color::Yellow),
        Tone::Bad => drawn.fg(Color::Red),
    }
}
