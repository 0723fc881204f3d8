//! How results look: tables for people, JSON and YAML for programs. Pure: values in, text out.

pub(crate) mod describe;
pub(crate) mod objects;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod time;

#[cfg(test)]
mod tests;

use crate::{cli::Format, context::Context, error::Error};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use table::{Cell, Column, Table};

/// Lines below a table that say what is wrong with what it lists.
const HINTS: usize = 3;

/// What a table needs to know of the place where it is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) wide: bool,
    /// Some of the objects belong to a chain: heights, peers and the like have a place.
    pub(crate) chain: bool,
    /// Objects of several namespaces stand side by side.
    pub(crate) namespaces: bool,
    pub(crate) color: bool,
    /// Columns of the terminal; None: no terminal, no limit.
    pub(crate) width: Option<u16>,
    pub(crate) now: Timestamp,
}

/// An object that a table can list.
pub(crate) trait Row: Serialize {
    /// `devnet/mynet`, for `-o name`.
    fn reference(&self) -> String;
    /// Whether it belongs to a chain, so that the chain's words are of use.
    fn has_chain(&self) -> bool {
        true
    }
    /// What is wrong with it, in one line for below a table, and what tells more.
    fn hint(&self) -> Option<String> {
        None
    }
    fn columns(style: &Style) -> Vec<Column>;
    fn cells(&self, style: &Style) -> Vec<Cell>;
}

/// How many objects the user named: one prints as the object itself, else as a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    One,
    Many,
}

/// Prints objects in the format asked for. `what` is said on stderr when there are none.
pub(crate) fn print_items<T: Row>(ctx: &Context, items: &[T], named: Named, what: &str) -> Result<(), Error> {
    match ctx.settings.format {
        Format::Json | Format::Yaml => match (named, items) {
            (Named::One, [one]) => ctx.print_structured(one),
            _ => ctx.print_structured(&json!({ "items": to_value(&items)? })),
        },
        Format::Name => Ok(items.iter().try_for_each(|item| ctx.print(item.reference()))?),
        Format::Table | Format::Wide if items.is_empty() => {
            ctx.note(format!("no {what}"));
            Ok(())
        }
        Format::Wide => Ok(ctx.print(table(items, &ctx.style()))?),
        Format::Table => {
            ctx.print(table(items, &ctx.style()))?;
            hints(items).iter().for_each(|hint| ctx.note(hint));
            Ok(())
        }
    }
}

pub(crate) fn table<T: Row>(items: &[T], style: &Style) -> String {
    let style = suited(items, style);
    rows(items, &style).render(style.width, style.color)
}

/// The style for these objects: without the chain's words where none of them has a chain.
pub(crate) fn suited<T: Row>(items: &[T], style: &Style) -> Style {
    Style { chain: items.is_empty() || items.iter().any(Row::has_chain), ..*style }
}

pub(crate) fn rows<T: Row>(items: &[T], style: &Style) -> Table {
    let mut table = Table::new(T::columns(style));
    items.iter().for_each(|item| table.push(item.cells(style)));
    table
}

/// A line for each of the first objects that something is wrong with.
fn hints<T: Row>(items: &[T]) -> Vec<String> {
    let mut hints: Vec<String> = items.iter().filter_map(Row::hint).collect();
    let more = hints.len().saturating_sub(HINTS);
    hints.truncate(HINTS);
    if more > 0 {
        hints.push(format!("and {more} more"));
    }
    hints
}

/// The object's JSON form without the nulls of absent fields.
pub(crate) fn to_value(object: &impl Serialize) -> Result<Value, Error> {
    let value = serde_json::to_value(object).map_err(|error| Error::failed("Internal", format!("cannot write the object as JSON: {error}")))?;
    Ok(clean(value))
}

/// Drops nulls, but not in JSON that the user wrote: in a merge patch a null means something.
pub(crate) fn clean(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let keep = fields.into_iter().filter(|(_, value)| !value.is_null());
            keep.map(|(key, value)| if matches!(key.as_str(), "patch" | "config" | "payload") { (key, value) } else { (key, clean(value)) }).collect()
        }
        Value::Array(items) => items.into_iter().map(clean).collect(),
        value => value,
    }
}

pub(crate) fn json(value: &Value) -> Result<String, Error> {
    serde_json::to_string_pretty(value).map_err(|error| Error::failed("Internal", format!("cannot write JSON: {error}")))
}

pub(crate) fn yaml(value: &Value) -> Result<String, Error> {
    serde_saphyr::to_string(value).map_err(|error| Error::failed("Internal", format!("cannot write YAML: {error}")))
}
