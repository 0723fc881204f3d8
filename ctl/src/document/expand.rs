//! `~`, `${VAR}` and relative paths: only in path, fromFile, cwd, env and a command's program, before the tree becomes a message.

use super::{
    report::{DocumentError, Source},
    tree::{Mark, Tree, Value},
};
use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

/// The environment as it was read at the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    pub(crate) vars: HashMap<String, String>,
    /// The user's home folder.
    pub(crate) home: Option<PathBuf>,
}

/// Expands what may be expanded. `base` is the folder that relative paths start from, absolute.
pub(super) fn expand(source: &Source, tree: &mut Tree, env: &Environment, base: &Path) -> Result<(), DocumentError> {
    let Some(spec) = tree.get_mut("spec") else { return Ok(()) };
    let job = Job { source, env, base };
    if let Some(binary) = spec.get_mut("binary") {
        job.field(binary, "path", Kind::Path)?;
    }
    if let Some(genesis) = spec.get_mut("genesis") {
        job.field(genesis, "fromFile", Kind::Path)?;
    }
    for node in items(spec, "nodes") {
        if let Some(binary) = node.get_mut("binary") {
            job.field(binary, "path", Kind::Path)?;
        }
        job.values(node, "env")?;
    }
    for service in items(spec, "services") {
        job.field(service, "cwd", Kind::Path)?;
        job.values(service, "env")?;
        if let Some(Value::List(words)) = service.get_mut("command").map(|command| &mut command.value)
            && let Some(Value::Text(program)) = words.first_mut().map(|word| &mut word.value)
            && program.contains('/')
            && Path::new(program).is_relative()
        {
            *program = absolute(base, program);
        }
    }
    Ok(())
}

/// One binary source of its own, as in a list for `dvbctl binaries add -f`.
pub(crate) fn expand_binary(source: &Source, binary: &mut Tree, env: &Environment, base: &Path) -> Result<(), DocumentError> {
    Job { source, env, base }.field(binary, "path", Kind::Path)
}

/// `path` below `base`, with `.` and `..` folded by text: links are the daemon's to follow.
pub(crate) fn absolute(base: &Path, path: &str) -> String {
    let mut folded = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                folded.pop();
            }
            part => folded.push(part),
        }
    }
    folded.to_string_lossy().into_owned()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Path,
    Text,
}

struct Job<'a> {
    source: &'a Source,
    env: &'a Environment,
    base: &'a Path,
}

impl Job<'_> {
    fn field(&self, parent: &mut Tree, name: &str, kind: Kind) -> Result<(), DocumentError> {
        match parent.get_mut(name) {
            Some(tree) => self.value(tree, kind),
            None => Ok(()),
        }
    }

    fn values(&self, parent: &mut Tree, name: &str) -> Result<(), DocumentError> {
        let Some(Value::Map(entries)) = parent.get_mut(name).map(|tree| &mut tree.value) else { return Ok(()) };
        entries.iter_mut().try_for_each(|(_, tree)| self.value(tree, Kind::Text))
    }

    fn value(&self, tree: &mut Tree, kind: Kind) -> Result<(), DocumentError> {
        let mark = tree.mark;
        let Value::Text(text) = &mut tree.value else { return Ok(()) };
        let expanded = expand_text(text, self.env).map_err(|undefined| self.fault(mark, text, &undefined))?;
        *text = match kind {
            Kind::Path if !expanded.is_empty() => absolute(self.base, &expanded),
            _ => expanded,
        };
        Ok(())
    }

    fn fault(&self, mark: Mark, text: &str, undefined: &Undefined) -> DocumentError {
        let (message, at) = match undefined {
            Undefined::Variable(name) => (format!("the variable {name} is not set"), text.find(&format!("${{{name}}}"))),
            Undefined::Open => ("`${` has no closing `}`".to_owned(), text.find("${")),
            Undefined::Home => ("`~` means the home folder, but HOME is not set".to_owned(), Some(0)),
        };
        let help = match undefined {
            Undefined::Variable(name) => format!("{name}=... dvbctl ..., or write $${{{name}}} for the text itself"),
            Undefined::Open => "write $${ for the text itself".to_owned(),
            Undefined::Home => "write the path in full".to_owned(),
        };
        // Point into a plain one-line value; in a quoted one the columns may differ, there its start must do.
        let plain = self.source.text[mark.offset..].starts_with(text);
        let shift = if plain { at.unwrap_or(0) } else { 0 };
        let mark = Mark { column: mark.column + shift, offset: mark.offset + shift, len: mark.len.saturating_sub(shift), ..mark };
        DocumentError::new(self.source, mark, message, Some(help))
    }
}

fn items<'t>(spec: &'t mut Tree, name: &str) -> impl Iterator<Item = &'t mut Tree> {
    let list = match spec.get_mut(name).map(|tree| &mut tree.value) {
        Some(Value::List(items)) => Some(items),
        _ => None,
    };
    list.into_iter().flatten()
}

#[derive(Debug, PartialEq, Eq)]
enum Undefined {
    Variable(String),
    Open,
    Home,
}

/// A leading `~` or `~/`, and every `${NAME}`; `$${` is a literal `${`.
fn expand_text(text: &str, env: &Environment) -> Result<String, Undefined> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    if text == "~" || text.starts_with("~/") {
        let home = env.home.as_deref().ok_or(Undefined::Home)?;
        out.push_str(&home.to_string_lossy());
        rest = &text[1..];
    }
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start - 1]);
            out.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let name_and_more = &rest[start + 2..];
        let end = name_and_more.find('}').ok_or(Undefined::Open)?;
        let name = &name_and_more[..end];
        out.push_str(env.vars.get(name).ok_or_else(|| Undefined::Variable(name.to_owned()))?);
        rest = &name_and_more[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<&str, Undefined>) {
        let vars = HashMap::from([("A".to_owned(), "x".to_owned())]);
        let env = Environment { vars, home: Some("/home/u".into()) };
        assert_eq!(expand_text(text, &env), expect.map(str::to_owned), "{text}");
    }

    #[test]
    fn tilde_and_variables_expand_and_nothing_else_does() {
        check("~", Ok("/home/u"));
        check("~/bin", Ok("/home/u/bin"));
        check("a~/b", Ok("a~/b"));
        check("~user/b", Ok("~user/b"));
        check("${A}-${A}", Ok("x-x"));
        check("$A", Ok("$A"));
        check("$${A}", Ok("${A}"));
        check("${B}", Err(Undefined::Variable("B".into())));
        check("${A", Err(Undefined::Open));
    }

    #[test]
    fn paths_fold_below_their_base() {
        assert_eq!(absolute(Path::new("/p/q"), "./wasmd"), "/p/q/wasmd");
        assert_eq!(absolute(Path::new("/p/q"), "../../../wasmd"), "/wasmd");
        assert_eq!(absolute(Path::new("/p/q"), "/abs"), "/abs");
    }
}
