//! What can go wrong in a verb, the exit code that it means, and its two forms: text and JSON.

use crate::document::DocumentError;
use dvb_proto::devnet::v1::Fault;
use prost::Message;
use serde_json::json;
use std::{
    fmt::Write as _,
    io,
    ops::{Deref, DerefMut},
    path::Path,
};
use tonic::{Code, Status};

/// The exit codes of CONTRACT.md; 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Refused = 4,
    Unreachable = 5,
    TimedOut = 6,
    Interrupted = 130,
}

/// Boxed: it is large, and results that carry it are moved a lot.
#[derive(Debug)]
pub(crate) struct Error(Box<Report>);

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) exit: Exit,
    pub(crate) fault: Fault,
    /// The lines that it is about.
    pub(crate) document: Option<DocumentError>,
    /// Further lines below the error: a log's tail, what is still missing.
    pub(crate) notes: Vec<String>,
}

impl Deref for Error {
    type Target = Report;
    fn deref(&self) -> &Report {
        &self.0
    }
}

impl DerefMut for Error {
    fn deref_mut(&mut self) -> &mut Report {
        &mut self.0
    }
}

impl Error {
    pub(crate) fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        let fault = Fault { code: code.to_owned(), message: message.into(), ..Fault::default() };
        Self(Box::new(Report { exit, fault, document: None, notes: Vec::new() }))
    }
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "Usage", message)
    }
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, "NotFound", message)
    }
    pub(crate) fn failed(code: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, code, message)
    }
    /// The daemon was there, and its connection broke off.
    pub(crate) fn lost() -> Self {
        let mut error = Self::new(Exit::Unreachable, LOST, "the connection to devnetd was lost").with_remedy("dvbctl daemon status");
        error.fault.retriable = true;
        error
    }
    pub(crate) fn is_lost(&self) -> bool {
        self.fault.code == LOST
    }
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        let mut error = Self::new(Exit::Unreachable, UNREACHABLE, message);
        error.fault.retriable = true;
        error
    }
    pub(crate) fn interrupted(remedy: &str) -> Self {
        Self::new(Exit::Interrupted, "Interrupted", "interrupted").with_remedy(remedy)
    }
    pub(crate) fn file(path: &str, error: &io::Error) -> Self {
        let exit = if error.kind() == io::ErrorKind::NotFound { Exit::Usage } else { Exit::Failed };
        let what = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            io::ErrorKind::IsADirectory => "is a folder".to_owned(),
            _ => error.to_string(),
        };
        Self::new(exit, "File", format!("{path}: {what}"))
    }
    pub(crate) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.fault.remedy = Some(remedy.into());
        self
    }
    pub(crate) fn about(mut self, subject: impl Into<String>) -> Self {
        self.fault.subject = Some(subject.into());
        self
    }
    pub(crate) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Of a refusal that no line of the document is to blame for: where the document stands.
    pub(crate) fn in_document(mut self, position: &str) -> Self {
        if matches!(self.exit, Exit::Refused | Exit::NotFound) {
            self.notes.push(format!("  at {position}"));
        }
        self
    }

    /// Several lines for people; without colours here, the caller paints the first word.
    pub(crate) fn render_text(&self, color: bool, unicode: bool, width: usize) -> String {
        let mut text = String::new();
        let subject = self.fault.subject.as_deref().filter(|subject| !self.fault.message.contains(subject));
        match (&self.document, subject) {
            (Some(document), _) => text.push_str(&document.render(color, unicode, width)),
            (None, Some(subject)) => {
                let _ = writeln!(text, "error: {subject}: {}", self.fault.message);
            }
            (None, None) => {
                let _ = writeln!(text, "error: {}", self.fault.message);
            }
        }
        if self.document.is_none() && self.fault.violations.len() > 1 {
            for violation in &self.fault.violations {
                let _ = writeln!(text, "  {}: {}", violation.field, violation.message);
            }
        }
        if let Some(remedy) = &self.fault.remedy {
            let _ = writeln!(text, "  try: {remedy}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text
    }

    /// `{"error": {...}}` on one line.
    pub(crate) fn render_json(&self) -> String {
        let Fault { code, message, subject, retriable, remedy, violations } = &self.fault;
        let mut error = json!({ "code": code, "message": message });
        if let Some(document) = &self.document {
            let spots = document.spots.iter().map(|spot| {
                json!({"file": document.source.name, "line": spot.mark.line, "column": spot.mark.column, "message": spot.message, "suggestion": spot.help})
            });
            error["positions"] = spots.collect();
        }
        if let Some(subject) = subject {
            error["subject"] = json!(subject);
        }
        error["retriable"] = json!(retriable);
        let only = self.document.as_ref().and_then(|document| match document.spots.as_slice() {
            [spot] => spot.help.as_ref(),
            _ => None,
        });
        if let Some(remedy) = remedy.as_ref().or(only) {
            error["remedy"] = json!(remedy);
        }
        if !violations.is_empty() {
            error["violations"] = crate::render::clean(json!(violations));
        }
        if !self.notes.is_empty() {
            error["notes"] = json!(self.notes);
        }
        json!({ "error": error }).to_string()
    }
}

impl From<DocumentError> for Error {
    fn from(document: DocumentError) -> Self {
        let mut error = Self::new(Exit::Usage, "InvalidDocument", document.summary());
        error.document = Some(document);
        error
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::BrokenPipe { BROKEN_PIPE } else { "Io" };
        Self::failed(code, format!("cannot write the output: {error}"))
    }
}

/// The code of an error that means that no daemon answers.
const UNREACHABLE: &str = "DaemonUnreachable";
/// As gRPC calls it.
const LOST: &str = "Unavailable";

/// The code of an error that only means that the reader of our output has gone.
pub(crate) const BROKEN_PIPE: &str = "BrokenPipe";

impl From<Status> for Error {
    /// The daemon's structured fault where the status carries one, else what gRPC says.
    fn from(status: Status) -> Self {
        let fault = Fault::decode(status.details()).ok().filter(|fault| !fault.code.is_empty());
        let Some(fault) = fault else { return bare_status(&status) };
        let exit = exit_of(&fault.code).unwrap_or_else(|| exit_of_grpc(status.code()));
        Self(Box::new(Report { exit, fault, document: None, notes: Vec::new() }))
    }
}

/// What a daemon that takes connections but does not answer comes to.
pub(crate) fn stuck(socket: &Path) -> Status {
    let fault = Fault {
        code: UNREACHABLE.to_owned(),
        message: format!("devnetd at {} takes connections but does not answer", socket.display()),
        retriable: true,
        remedy: Some("dvbctl daemon logs".into()),
        ..Fault::default()
    };
    Status::with_details(Code::Unavailable, fault.message.clone(), fault.encode_to_vec().into())
}

/// Whether the channel's own limit ran out. It comes as Cancelled, and is told by its text alone.
pub(crate) fn is_late(status: &Status) -> bool {
    status.message() == "Timeout expired"
}

/// Whether the status was made on our side, of an error of the connection.
fn is_broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some_and(|source| source.is::<tonic::transport::Error>())
}

fn bare_status(status: &Status) -> Error {
    if is_late(status) {
        return Error::new(Exit::TimedOut, "TimedOut", "devnetd did not answer in time")
            .with_remedy("dvbctl daemon logs; or wait longer with --timeout");
    }
    // A daemon that was killed under our call: the transport breaks off, and no code is sent for that.
    if status.code() == Code::Unavailable || is_broken(status) {
        return Error::lost();
    }
    let (code, exit) = (status.code(), exit_of_grpc(status.code()));
    let message = match code {
        _ if status.message().is_empty() => format!("devnetd answered {:?}", status.code()),
        _ => status.message().to_owned(),
    };
    let mut error = Error::new(exit, &format!("{code:?}"), message);
    if exit == Exit::Unreachable {
        error.fault.remedy = Some("dvbctl daemon status".into());
    }
    error
}

fn exit_of(code: &str) -> Option<Exit> {
    Some(match code {
        "NotFound" => Exit::NotFound,
        "AlreadyExists" | "Conflict" | "InvalidSpec" | "Immutable" | "PermissionDenied" | "PluginMissing" | "PluginRejected" | "Unimplemented" => {
            Exit::Refused
        }
        UNREACHABLE | "HomeMismatch" | "ShuttingDown" => Exit::Unreachable,
        "TimedOut" => Exit::TimedOut,
        "Internal" => Exit::Failed,
        _ => return None,
    })
}

fn exit_of_grpc(code: Code) -> Exit {
    match code {
        Code::NotFound => Exit::NotFound,
        Code::AlreadyExists
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => Exit::Refused,
        Code::Unavailable => Exit::Unreachable,
        Code::DeadlineExceeded => Exit::TimedOut,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: Code, fault: Option<&str>, expect: Exit) {
        let details = fault.map(|code| Fault { code: code.into(), message: "m".into(), ..Fault::default() }.encode_to_vec()).unwrap_or_default();
        let error = Error::from(Status::with_details(code, "m", details.into()));
        assert_eq!(error.exit, expect, "{code:?} {fault:?}");
    }

    #[test]
    fn each_fault_has_the_contracts_exit_code() {
        check(Code::NotFound, Some("NotFound"), Exit::NotFound);
        check(Code::InvalidArgument, Some("InvalidSpec"), Exit::Refused);
        check(Code::FailedPrecondition, Some("Immutable"), Exit::Refused);
        check(Code::Aborted, Some("Conflict"), Exit::Refused);
        check(Code::FailedPrecondition, Some("HomeMismatch"), Exit::Unreachable);
        check(Code::Unimplemented, Some("Unimplemented"), Exit::Refused);
        check(Code::Unimplemented, None, Exit::Refused);
        check(Code::Internal, Some("Internal"), Exit::Failed);
        check(Code::Unavailable, None, Exit::Unreachable);
        check(Code::DeadlineExceeded, None, Exit::TimedOut);
        check(Code::Unknown, None, Exit::Failed);
    }

    #[test]
    fn garbage_in_the_details_is_not_taken_for_a_fault() {
        let error = Error::from(Status::with_details(Code::NotFound, "gone", vec![0xff, 0xff, 0xff].into()));
        assert_eq!((error.exit, error.fault.message.as_str()), (Exit::NotFound, "gone"));
    }

    #[test]
    fn the_json_form_is_the_contracts() {
        let mut error = Error::failed("PortBusy", "port 26657 is taken").about("mynet/validator-0").with_remedy("stop pid 42");
        error.fault.retriable = true;
        let expect =
            r#"{"error":{"code":"PortBusy","message":"port 26657 is taken","subject":"mynet/validator-0","retriable":true,"remedy":"stop pid 42"}}"#;
        assert_eq!(error.render_json(), expect);
    }
}
