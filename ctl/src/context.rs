//! What every verb has at hand: the settings, the two output streams, the clock.

use crate::{
    cli::Format,
    client::Client,
    error::Error,
    render::{self, Style},
    settings::Settings,
};
use dvb_proto::devnet::v1::{ListRequest, ObjectRef};
use jiff::Timestamp;
use serde::Serialize;
use std::io::{self, Write};

#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    /// The verb is one that begins something: it makes the home that it is given.
    pub(crate) makes_home: bool,
    pub(crate) now: fn() -> Timestamp,
}

impl Context {
    pub(crate) async fn client(&self) -> Result<Client, Error> {
        Client::connect(self).await
    }

    /// For an object that says its own namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Self {
        let mut settings = self.settings.clone();
        settings.namespace = namespace.to_owned();
        Self { settings, ..self.clone() }
    }

    /// One line of result on stdout.
    pub(crate) fn print(&self, line: impl AsRef<str>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(line.as_ref().as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// A note on stderr; nobody is left to tell when that fails.
    pub(crate) fn note(&self, line: impl AsRef<str>) {
        let _ = writeln!(io::stderr().lock(), "{}", line.as_ref());
    }

    pub(crate) fn debug(&self, line: impl AsRef<str>) {
        if self.settings.verbose {
            self.note(line);
        }
    }

    /// How tables on stdout look.
    pub(crate) fn style(&self) -> Style {
        Style {
            wide: self.settings.format == Format::Wide,
            chain: true,
            namespaces: self.settings.all_namespaces,
            color: self.settings.stdout.color,
            // What was asked for in full is not cut.
            width: self.settings.stdout.width.filter(|_| self.settings.format != Format::Wide),
            now: (self.now)(),
        }
    }

    pub(crate) fn is_structured(&self) -> bool {
        matches!(self.settings.format, Format::Json | Format::Yaml)
    }

    /// Any message as JSON or YAML; the caller has dealt with the other formats.
    pub(crate) fn print_structured(&self, value: &impl Serialize) -> Result<(), Error> {
        let value = render::to_value(value)?;
        match self.settings.format {
            Format::Yaml => Ok(self.print(render::yaml(&value)?.trim_end())?),
            _ => Ok(self.print(render::json(&value)?)?),
        }
    }

    pub(crate) fn object(&self, name: &str) -> ObjectRef {
        ObjectRef { namespace: self.settings.namespace.clone(), name: name.to_owned() }
    }

    pub(crate) fn selector(&self) -> ListRequest {
        ListRequest { namespace: self.settings.namespace.clone(), all_namespaces: self.settings.all_namespaces, ..ListRequest::default() }
    }
}
