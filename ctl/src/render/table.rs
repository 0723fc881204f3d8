//! Tables without borders, one line per row, fitted to the terminal: spare columns go first, then flexible ones are cut, with an ellipsis.

use comfy_table::{Cell as Drawn, Color, ColumnConstraint, ContentArrangement, Row, Table as Drawing, Width, presets};

/// Between two columns.
const GAP: u16 = 2;
/// What a flexible column needs to be of any use.
const LEAST_FLEXIBLE: u16 = 8;

#[derive(Clone, Debug)]
pub(crate) struct Column {
    title: &'static str,
    flexible: bool,
    /// The highest goes first where the terminal is too narrow; 0: stays.
    spare: u8,
}

#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) text: String,
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
    Column { title, flexible: false, spare: 0 }
}

/// A column that gives way when the terminal is narrow.
pub(crate) fn flexible(title: &'static str) -> Column {
    Column { title, flexible: true, spare: 0 }
}

/// A column that is left out before anything is cut, the one with the highest `rank` first.
pub(crate) fn spare(title: &'static str, rank: u8) -> Column {
    Column { title, flexible: false, spare: rank }
}

/// What rows that follow a table later must keep to.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Width of each column's content, also of those that are left out.
    widths: Vec<u16>,
    /// The columns that are shown.
    shown: Vec<usize>,
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
        self.render_in(&self.layout(&[], width), width, color)
    }

    /// With its header.
    pub(crate) fn render_in(&self, layout: &Layout, width: Option<u16>, color: bool) -> String {
        let header: Vec<Cell> = self.columns.iter().map(|column| Cell::from(column.title)).collect();
        self.draw(Some(&header), layout, width, color)
    }

    /// The rows alone: for rows that follow a table later.
    pub(crate) fn render_rows(&self, layout: &Layout, width: Option<u16>, color: bool) -> String {
        let own = self.layout(&layout.widths, None);
        self.draw(None, &Layout { shown: layout.shown.clone(), ..own }, width, color)
    }

    /// Which columns there is room for, and how wide each is: at least as in `least`.
    pub(crate) fn layout(&self, least: &[u16], width: Option<u16>) -> Layout {
        let title = |i: usize| self.columns[i].title.len();
        let widest = |i: usize| self.rows.iter().map(|row| row[i].text.chars().count()).max().unwrap_or(0);
        let own = |i: usize| u16::try_from(title(i).max(widest(i))).unwrap_or(u16::MAX);
        let widths: Vec<u16> = (0..self.columns.len()).map(|i| own(i).max(least.get(i).copied().unwrap_or(0))).collect();
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let total = |shown: &[usize]| shown.iter().fold(0_u16, |sum, i| sum.saturating_add(widths[*i]).saturating_add(GAP)) - GAP;
        while width.is_some_and(|width| total(&shown) > width)
            && let Some(least_needed) = shown.iter().copied().filter(|i| self.columns[*i].spare > 0).max_by_key(|i| self.columns[*i].spare)
        {
            shown.retain(|i| *i != least_needed);
        }
        Layout { widths, shown }
    }

    fn draw(&self, header: Option<&Vec<Cell>>, layout: &Layout, width: Option<u16>, color: bool) -> String {
        let mut drawing = Drawing::new();
        drawing.load_style(presets::NOTHING).set_truncation_indicator("…");
        if color {
            drawing.enforce_styling();
        } else {
            drawing.force_no_tty();
        }
        for cells in header.into_iter().chain(&self.rows) {
            let mut row = Row::new();
            for i in &layout.shown {
                row.add_cell(drawn(&cells[*i], color));
            }
            row.max_height(1);
            drawing.add_row(row);
        }
        match width {
            None => drawing.set_content_arrangement(ContentArrangement::Disabled),
            // The gap behind the last column holds nothing: it may lie beyond the edge.
            Some(width) => drawing.set_width(width.saturating_add(GAP)).set_content_arrangement(ContentArrangement::Dynamic),
        };
        let columns: Vec<(bool, u16)> = layout.shown.iter().map(|i| (self.columns[*i].flexible, layout.widths[*i])).collect();
        let rigid = columns.iter().filter(|(flexible, _)| !flexible).fold(0_u16, |sum, (_, own)| sum.saturating_add(*own));
        let gaps = u16::try_from(columns.len()).unwrap_or(u16::MAX).saturating_mul(GAP).saturating_sub(GAP);
        let loose = u16::try_from(columns.iter().filter(|(flexible, _)| *flexible).count()).unwrap_or(0).saturating_mul(LEAST_FLEXIBLE);
        // When even the rigid columns do not fit, all of them must give way.
        let fits = width.is_none_or(|width| rigid.saturating_add(gaps).saturating_add(loose) <= width);
        for ((flexible, own), drawn) in columns.into_iter().zip(drawing.column_iter_mut()) {
            drawn.set_padding((0, GAP));
            if fits && !flexible {
                drawn.set_constraint(ColumnConstraint::Absolute(Width::Fixed(own.saturating_add(GAP))));
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
