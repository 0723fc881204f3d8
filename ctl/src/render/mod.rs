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

/// What a table needs to know of the place where it is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) wide: bool,
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
        Format::Table | Format::Wide => Ok(ctx.print(table(items, &ctx.style()))?),
    }
}

pub(crate) fn table<T: Row>(items: &[T], style: &Style) -> String {
    let mut table = Table::new(T::columns(style));
    items.iter().for_each(|item| table.push(item.cells(style)));
    table.render(style.width, style.color)
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
