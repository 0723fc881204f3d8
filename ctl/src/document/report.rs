//! Errors of a document with the offending line: through miette, coloured only where asked for.

use super::tree::{Mark, Tree};
use dvb_proto::devnet::v1::Violation;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use std::{fmt, sync::Arc};

/// A text and where it came from: a path as the user gave it, or `<stdin>`.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// One or more faults of one text.
#[derive(Debug)]
pub(crate) struct DocumentError {
    pub(crate) source: Arc<Source>,
    pub(crate) spots: Vec<Spot>,
}

#[derive(Clone, Debug)]
pub(crate) struct Spot {
    pub(crate) mark: Mark,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl DocumentError {
    pub(crate) fn new(source: &Source, mark: Mark, message: impl Into<String>, help: Option<String>) -> Self {
        let source = Arc::new(Source { name: source.name.clone(), text: source.text.clone() });
        Self { source, spots: vec![Spot { mark, message: message.into(), help }] }
    }

    /// About the text as a whole: there is no line to show.
    pub(crate) fn whole(source: &Source, message: impl fmt::Display) -> Self {
        Self::new(&Source { name: source.name.clone(), text: String::new() }, Mark::default(), message.to_string(), None)
    }

    /// Faults that the server found, each put at the field's place in the document.
    pub(crate) fn from_violations(source: &Source, tree: &Tree, violations: &[Violation]) -> Self {
        let spots = violations
            .iter()
            .map(|violation| Spot {
                mark: tree.locate(&violation.field),
                message: format!("{}: {}", violation.field, violation.message),
                help: violation.suggestion.clone(),
            })
            .collect();
        Self { source: Arc::new(Source { name: source.name.clone(), text: source.text.clone() }), spots }
    }

    /// `devnet.yaml:7:3`, or only the name where no line is known.
    pub(crate) fn position(&self, spot: &Spot) -> String {
        position(&self.source, spot.mark)
    }

    pub(crate) fn summary(&self) -> String {
        let lines = self.spots.iter().map(|spot| format!("{}: {}", self.position(spot), spot.message));
        lines.collect::<Vec<_>>().join("; ")
    }

    /// The text for people. `width` in columns.
    pub(crate) fn render(&self, color: bool, unicode: bool, width: usize) -> String {
        let theme = match (color, unicode) {
            (true, _) => GraphicalTheme::unicode(),
            (false, true) => GraphicalTheme::unicode_nocolor(),
            (false, false) => GraphicalTheme::none(),
        };
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(width).with_context_lines(1);
        let mut text = String::new();
        for spot in &self.spots {
            text.push_str(&format!("error: {}: {}\n", self.position(spot), spot.message));
            if spot.mark.line > 0 {
                let report = Report { source: NamedSource::new(&self.source.name, self.source.text.clone()), spot };
                // Writing into a String does not fail; a report that cannot be drawn leaves the first line.
                let mut drawn = String::new();
                if handler.render_report(&mut drawn, &report).is_ok() {
                    text.push_str(snippet(&drawn));
                }
            }
            if let Some(help) = &spot.help {
                text.push_str(&format!("  try: {help}\n"));
            }
        }
        text
    }
}

pub(crate) fn position(source: &Source, mark: Mark) -> String {
    match mark.line {
        0 => source.name.clone(),
        line => format!("{}:{line}:{}", source.name, mark.column),
    }
}

/// The drawing without miette's own headline, which our first line has said already.
fn snippet(drawn: &str) -> &str {
    let drawn = drawn.trim_start_matches('\n');
    drawn.find('\n').map_or("", |end| drawn[end + 1..].trim_start_matches('\n'))
}

struct Report<'a> {
    source: NamedSource<String>,
    spot: &'a Spot,
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.spot)
    }
}
impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("here")
    }
}
impl std::error::Error for Report<'_> {}
impl Diagnostic for Report<'_> {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let mark = self.spot.mark;
        let text = &self.source.inner()[mark.offset..mark.offset + mark.len];
        // A block would underline the page: its first line is enough.
        let len = text.find('\n').unwrap_or(text.len()).max(1);
        Some(Box::new(std::iter::once(LabeledSpan::underline((mark.offset, len)))))
    }
}
