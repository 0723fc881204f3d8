//! From the user's words (`-f` file, folder or `-`) to documents ready to be sent.

use super::{
    decode,
    expand::{Environment, expand},
    report::{DocumentError, Source, position},
    tree::{MAX_BYTES, Tree, parse},
};
use crate::error::Error;
use dvb_proto::devnet::v1::{Devnet, Export, Metadata, Transaction, Upgrade};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(crate) const API_VERSION: &str = "devnet.builder/v1";

/// One object of a file, and where its fields stand.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) source: Arc<Source>,
    pub(crate) tree: Tree,
    pub(crate) wanted: Wanted,
}

/// What a document declares, without what only the daemon writes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    Devnet(Box<Devnet>),
    Transaction(Box<Transaction>),
    Upgrade(Box<Upgrade>),
    Export(Box<Export>),
}

/// As they are written, in the order in which they are told.
const KINDS: [&str; 4] = ["Devnet", "Upgrade", "Transaction", "Export"];

impl Wanted {
    /// In lower case.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Devnet(_) => "devnet",
            Self::Transaction(_) => "transaction",
            Self::Upgrade(_) => "upgrade",
            Self::Export(_) => "export",
        }
    }

    pub(crate) fn namespace(&self) -> &str {
        self.metadata().map_or("", |metadata| metadata.namespace.as_str())
    }

    /// `mynet`, or `mynet/v2` of what belongs to a devnet.
    pub(crate) fn name(&self) -> String {
        let name = self.metadata().map_or("", |metadata| metadata.name.as_str());
        let of_devnet = match self {
            Self::Devnet(_) => None,
            Self::Transaction(tx) => tx.spec.as_ref().map(|spec| &spec.devnet_ref),
            Self::Upgrade(upgrade) => upgrade.spec.as_ref().map(|spec| &spec.devnet_ref),
            Self::Export(export) => export.spec.as_ref().map(|spec| &spec.devnet_ref),
        };
        match of_devnet {
            Some(devnet) if !name.contains('/') => format!("{devnet}/{name}"),
            _ => name.to_owned(),
        }
    }

    /// The devnet that it is or belongs to.
    pub(crate) fn devnet(&self) -> String {
        self.name().split('/').next().unwrap_or_default().to_owned()
    }

    pub(crate) fn is_devnet(&self) -> bool {
        matches!(self, Self::Devnet(_))
    }

    fn metadata(&self) -> Option<&Metadata> {
        match self {
            Self::Devnet(devnet) => devnet.metadata.as_ref(),
            Self::Transaction(tx) => tx.metadata.as_ref(),
            Self::Upgrade(upgrade) => upgrade.metadata.as_ref(),
            Self::Export(export) => export.metadata.as_ref(),
        }
    }

    fn metadata_mut(&mut self) -> Option<&mut Metadata> {
        match self {
            Self::Devnet(devnet) => devnet.metadata.as_mut(),
            Self::Transaction(tx) => tx.metadata.as_mut(),
            Self::Upgrade(upgrade) => upgrade.metadata.as_mut(),
            Self::Export(export) => export.metadata.as_mut(),
        }
    }

    /// What the daemon wrote into an exported document is not the user's to set.
    fn strip(&mut self) {
        match self {
            Self::Devnet(devnet) => {
                devnet.status = None;
                if let Some(spec) = &mut devnet.spec {
                    spec.operations = None;
                }
            }
            Self::Transaction(tx) => tx.status = None,
            Self::Upgrade(upgrade) => upgrade.status = None,
            Self::Export(export) => export.status = None,
        }
    }
}

impl Document {
    pub(crate) fn position(&self) -> String {
        position(&self.source, self.tree.locate("metadata.name"))
    }
}

/// Reads all of `names`: files, folders (their .yaml, .yml and .json files by name) and `-`. `namespace` is for documents that name none.
pub(crate) fn load(names: &[String], namespace: &str, env: &Environment, cwd: &Path) -> Result<Vec<Document>, Error> {
    let mut documents = Vec::new();
    for name in names {
        for path in files(name)? {
            let source = Arc::new(read_source(&path)?);
            let base = match path.as_str() {
                "-" => cwd.to_owned(),
                path => cwd.join(path).parent().map_or_else(|| cwd.to_owned(), Path::to_owned),
            };
            documents.extend(parse_documents(&source, namespace, env, &base)?);
        }
    }
    refuse_twins(&documents)?;
    refuse_disorder(&documents)?;
    if documents.is_empty() {
        return Err(Error::usage(format!("no document in {}", names.join(", "))).with_remedy("dvbctl apply --help"));
    }
    Ok(documents)
}

/// The documents of one text.
pub(crate) fn parse_documents(source: &Arc<Source>, namespace: &str, env: &Environment, base: &Path) -> Result<Vec<Document>, DocumentError> {
    let read = |mut tree: Tree| {
        check_head(source, &tree)?;
        expand(source, &mut tree, env, base)?;
        let mut wanted = match tree.get("kind").and_then(Tree::text) {
            Some("Upgrade") => Wanted::Upgrade(Box::new(decode(source, &tree)?)),
            Some("Transaction") => Wanted::Transaction(Box::new(decode(source, &tree)?)),
            Some("Export") => Wanted::Export(Box::new(decode(source, &tree)?)),
            _ => Wanted::Devnet(Box::new(decode(source, &tree)?)),
        };
        wanted.strip();
        if let Some(metadata) = wanted.metadata_mut() {
            if metadata.namespace.is_empty() {
                metadata.namespace = namespace.to_owned();
            }
            metadata.resource_version = 0;
        }
        if wanted.name().starts_with('/') {
            let help = Some("spec: {devnetRef: mynet}".to_owned());
            return Err(DocumentError::new(source, tree.locate("spec.devnetRef"), "spec.devnetRef is missing: which devnet is it for?", help));
        }
        Ok(Document { source: source.clone(), tree, wanted })
    };
    parse(source)?.into_iter().map(read).collect()
}

/// Reads a file, or stdin for `-`. Not larger than [`MAX_BYTES`].
pub(crate) fn read_source(path: &str) -> Result<Source, Error> {
    let mut bytes = Vec::new();
    let read = match path {
        "-" => std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes),
        path => fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|error| Error::file(path, &error))?;
    let name = if path == "-" { "<stdin>".to_owned() } else { path.to_owned() };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { name, text }),
        Err(error) => {
            let text = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
            let line = text.matches('\n').count() + 1;
            Err(DocumentError::whole(&Source { name, text: String::new() }, format!("line {line} is not UTF-8 text")).into())
        }
    }
}

fn files(name: &str) -> Result<Vec<String>, Error> {
    if name == "-" || !Path::new(name).is_dir() {
        return Ok(vec![name.to_owned()]);
    }
    let entries = fs::read_dir(name).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut paths: Vec<PathBuf> = entries.map_err(|error| Error::file(name, &error))?.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.is_file() && path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known)));
    paths.sort();
    if paths.is_empty() {
        return Err(Error::usage(format!("the folder {name} has no .yaml, .yml or .json file")));
    }
    Ok(paths.into_iter().map(|path| path.to_string_lossy().into_owned()).collect())
}

/// What makes a document a devnet of ours, said before any field is looked at: a foreign document gets one clear error.
fn check_head(source: &Source, tree: &Tree) -> Result<(), DocumentError> {
    let fault = |field: &str, message: String, help: &str| Err(DocumentError::new(source, tree.locate(field), message, Some(help.to_owned())));
    if !matches!(tree.value, super::tree::Value::Map(_)) {
        return fault("", "a document is a map of fields".into(), "begin with `apiVersion: devnet.builder/v1`");
    }
    match tree.get("kind").map(Tree::text) {
        Some(Some(kind)) if KINDS.contains(&kind) => {}
        Some(Some(kind)) => return fault("kind", format!("kind `{kind}` cannot be applied"), KINDS.join(", ").as_str()),
        _ if tree.get("kind").is_none() && !looks_like_ours(tree) => return fault("", "is not a Devnet: it has no kind".into(), "kind: Devnet"),
        Some(None) => return fault("kind", "kind must be a text".into(), "kind: Devnet"),
        // The field that is misspelt is told by name when the fields are read.
        None if misspelt(tree, "kind") => {}
        None => return fault("", "kind is missing".into(), "kind: Devnet"),
    }
    match tree.get("apiVersion").map(Tree::text) {
        Some(Some(API_VERSION)) => {}
        Some(Some(version)) => return fault("apiVersion", format!("apiVersion `{version}` is not known here"), API_VERSION),
        Some(None) => return fault("apiVersion", "apiVersion must be a text".into(), API_VERSION),
        None if misspelt(tree, "apiVersion") => {}
        None => return fault("kind", "apiVersion is missing".into(), "apiVersion: devnet.builder/v1"),
    }
    let metadata = tree.get("metadata").map(|metadata| (metadata.get("name").is_some(), misspelt(metadata, "name")));
    match metadata {
        Some((true, _) | (_, true)) => Ok(()),
        Some(_) => fault("metadata", "metadata.name is missing".into(), "metadata: {name: mynet}"),
        None if misspelt(tree, "metadata") => Ok(()),
        None => fault("kind", "metadata.name is missing".into(), "metadata: {name: mynet}"),
    }
}

fn looks_like_ours(tree: &Tree) -> bool {
    ["apiVersion", "metadata", "spec"].iter().any(|name| tree.get(name).is_some())
}

/// Whether a key is close to `name` without being it or another known one.
fn misspelt(tree: &Tree, name: &str) -> bool {
    const KNOWN: [&str; 12] =
        ["apiVersion", "kind", "metadata", "spec", "status", "name", "namespace", "labels", "annotations", "uid", "generation", "createdAt"];
    let super::tree::Value::Map(entries) = &tree.value else { return false };
    let near = |key: &str| strsim::jaro_winkler(&key.to_lowercase(), &name.to_lowercase()) >= 0.85;
    entries.iter().any(|(key, _)| near(&key.name) && !KNOWN.contains(&key.name.as_str()))
}

fn refuse_twins(documents: &[Document]) -> Result<(), DocumentError> {
    let identity = |document: &Document| (document.wanted.word(), document.wanted.namespace().to_owned(), document.wanted.name());
    for (i, document) in documents.iter().enumerate() {
        if let Some(first) = documents[..i].iter().find(|other| identity(other) == identity(document)) {
            let (word, name) = (document.wanted.word(), document.wanted.name());
            let message = format!("the {word} {name} is defined twice; first at {}", first.position());
            let help = Some("give one of the two another name or namespace".into());
            return Err(DocumentError::new(&document.source, document.tree.locate("metadata.name"), message, help));
        }
    }
    Ok(())
}

/// Documents are applied in their order: what belongs to a devnet stands below it.
fn refuse_disorder(documents: &[Document]) -> Result<(), DocumentError> {
    for (i, document) in documents.iter().enumerate().filter(|(_, document)| !document.wanted.is_devnet()) {
        let (namespace, devnet) = (document.wanted.namespace(), document.wanted.devnet());
        let is_its = |other: &&Document| other.wanted.is_devnet() && other.wanted.namespace() == namespace && other.wanted.name() == devnet;
        if let Some(later) = documents[i..].iter().find(is_its) {
            let message =
                format!("the {} {} stands before its devnet, which is at {}", document.wanted.word(), document.wanted.name(), later.position());
            let help = Some("documents are applied in their order: put the devnet first".into());
            return Err(DocumentError::new(&document.source, document.tree.locate("metadata.name"), message, help));
        }
    }
    Ok(())
}
