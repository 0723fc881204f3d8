//! `binaries`: the cache of node binaries: list, add (build or fetch), evict.

use crate::{
    cli::Format,
    client::Client,
    confirm::confirm,
    context::Context,
    document::{self, DocumentError, Source, Tree, absolute, decode, expand_binary, read_source},
    error::Error,
    render::{Named, print_items, progress::Progress},
};
use clap::Subcommand;
use dvb_proto::devnet::v1::{AddBinaryRequest, BinaryInfo, BinarySource, CargoSource, Empty, EvictBinariesRequest, GitSource, GoModule, NpmSource};
use std::path::Path;

/// The cache of node binaries
///
/// Without a verb: lists what is in it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

impl Args {
    pub(crate) fn adds(&self) -> bool {
        matches!(self.verb, Some(Verb::Add(_)))
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List what is in the cache
    List {
        /// Digests or their beginnings
        digests: Vec<String>,
    },
    /// Build or fetch binaries into the cache
    Add(Box<Add>),
    /// Remove binaries that no devnet uses
    Evict {
        /// Digests or their beginnings
        digests: Vec<String>,
        /// All that were not used for so long, as in 720h
        #[arg(long, value_name = "TIME")]
        older_than: Option<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Add {
    /// File with sources: a list of what stands in spec.binary
    #[arg(short, long = "filename", value_name = "FILE")]
    file: Vec<String>,
    /// A binary on this machine
    #[arg(long)]
    path: Option<String>,
    /// Go module: github.com/CosmWasm/wasmd@v0.54.0
    #[arg(long, value_name = "MODULE@VERSION")]
    go_module: Option<String>,
    /// Main package of the Go module
    #[arg(long, requires = "go_module")]
    package: Option<String>,
    /// Build tags of the Go module
    #[arg(long, requires = "go_module", value_delimiter = ',')]
    tags: Vec<String>,
    /// Download; needs --sha256
    #[arg(long, requires = "sha256")]
    url: Option<String>,
    #[arg(long, requires = "url")]
    sha256: Option<String>,
    /// Crate of crates.io
    #[arg(long, value_name = "CRATE@VERSION")]
    cargo: Option<String>,
    /// Package of npm
    #[arg(long, value_name = "PACKAGE@VERSION")]
    npm: Option<String>,
    /// Git repository; needs --build and --bin
    #[arg(long, value_name = "URL@REV", requires = "build", requires = "bin")]
    git: Option<String>,
    /// Command that builds the git repository
    #[arg(long, requires = "git")]
    build: Option<String>,
    /// The program, where the source has several
    #[arg(long)]
    bin: Option<String>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    match args.verb.unwrap_or(Verb::List { digests: Vec::new() }) {
        Verb::List { digests } => list(ctx, &ctx.client().await?, &digests).await,
        Verb::Add(add) => {
            let sources = sources(ctx, *add)?;
            add_all(ctx, &ctx.client().await?, sources).await
        }
        Verb::Evict { digests, older_than, yes } => evict(ctx, digests, older_than, yes).await,
    }
}

pub(super) async fn list(ctx: &Context, client: &Client, digests: &[String]) -> Result<(), Error> {
    let mut items = client.daemon().list_binaries(Empty {}).await?.into_inner().items;
    if !digests.is_empty() {
        items.retain(|binary| digests.iter().any(|digest| binary.digest.starts_with(digest.as_str())));
        if items.is_empty() {
            return Err(Error::not_found(format!("no binary {} is in the cache", digests.join(", "))).with_remedy("dvbctl binaries list"));
        }
    }
    let named = if digests.len() == 1 { Named::One } else { Named::Many };
    print_items(ctx, &items, named, "binaries")
}

async fn add_all(ctx: &Context, client: &Client, sources: Vec<BinarySource>) -> Result<(), Error> {
    let mut added = Vec::new();
    for source in sources {
        let progress = Progress::new(ctx);
        let mut steps = client.daemon().add_binary(AddBinaryRequest { source: Some(source) }).await?.into_inner();
        let mut done: Option<BinaryInfo> = None;
        let mut log_path = None;
        while let Some(step) = steps.message().await.map_err(|status| with_log(status.into(), log_path.as_deref()))? {
            if !step.message.is_empty() {
                progress.say(&step.message);
            }
            log_path = step.log_path.or(log_path);
            done = step.done.or(done);
        }
        progress.finish();
        let done =
            done.ok_or_else(|| with_log(Error::failed("BinaryBuildFailed", "devnetd ended the build without a binary"), log_path.as_deref()))?;
        if matches!(ctx.settings.format, Format::Table | Format::Wide) {
            ctx.print(format!("{}  {}  {}", done.digest, done.source, done.path))?;
        }
        added.push(done);
    }
    match ctx.settings.format {
        Format::Table | Format::Wide => Ok(()),
        _ => print_items(ctx, &added, if added.len() == 1 { Named::One } else { Named::Many }, "binaries"),
    }
}

fn with_log(error: Error, log_path: Option<&str>) -> Error {
    match log_path {
        Some(path) => error.with_note(format!("  log: {path}")),
        None => error,
    }
}

async fn evict(ctx: &Context, mut digests: Vec<String>, older_than: Option<String>, yes: bool) -> Result<(), Error> {
    if digests.is_empty() && older_than.is_none() {
        return Err(Error::usage("say which: digests, or --older-than").with_remedy("dvbctl binaries evict --older-than 720h"));
    }
    let client = ctx.client().await?;
    let known = client.daemon().list_binaries(Empty {}).await?.into_inner().items;
    for digest in &mut digests {
        let mut fitting = known.iter().filter(|binary| binary.digest.starts_with(digest.as_str()));
        *digest = match (fitting.next(), fitting.next()) {
            (Some(one), None) => one.digest.clone(),
            (None, _) => return Err(Error::not_found(format!("no binary {digest} is in the cache")).with_remedy("dvbctl binaries list")),
            _ => return Err(Error::usage(format!("several binaries begin with {digest}")).with_remedy("more digits; dvbctl binaries list -o wide")),
        };
    }
    let what = older_than.as_deref().map_or_else(|| digests.join(" "), |age| format!("all binaries unused for {age}"));
    confirm(ctx, yes, &format!("Evict {what}."), "dvbctl binaries evict ...")?;
    let gone = client.daemon().evict_binaries(EvictBinariesRequest { digests, older_than }).await?.into_inner().items;
    print_items(ctx, &gone, Named::Many, "binaries evicted")
}

fn sources(ctx: &Context, add: Add) -> Result<Vec<BinarySource>, Error> {
    let mut sources = Vec::new();
    for file in &add.file {
        sources.extend(from_file(ctx, file)?);
    }
    let one = |source: BinarySource| vec![source];
    if let Some(path) = &add.path {
        sources.extend(one(BinarySource { path: Some(absolute(&ctx.settings.cwd, path)), ..BinarySource::default() }));
    }
    if let Some(text) = &add.go_module {
        let (module, version) = at(text, "--go-module")?;
        let go_module = GoModule { module, version, package: add.package, tags: add.tags, ldflags: None, go_version: None };
        sources.extend(one(BinarySource { go_module: Some(go_module), ..BinarySource::default() }));
    }
    if add.url.is_some() {
        sources.extend(one(BinarySource { url: add.url, sha256: add.sha256, ..BinarySource::default() }));
    }
    if let Some(text) = &add.cargo {
        let (crate_, version) = at(text, "--cargo")?;
        sources.extend(one(BinarySource { cargo: Some(CargoSource { crate_, version, bin: add.bin.clone() }), ..BinarySource::default() }));
    }
    if let Some(text) = &add.npm {
        let (package, version) = at(text, "--npm")?;
        sources.extend(one(BinarySource { npm: Some(NpmSource { package, version, bin: add.bin.clone() }), ..BinarySource::default() }));
    }
    if let Some(text) = &add.git {
        let (url, rev) = at(text, "--git")?;
        let git = GitSource { url, rev, build: add.build.unwrap_or_default(), bin: add.bin.unwrap_or_default() };
        sources.extend(one(BinarySource { git: Some(git), ..BinarySource::default() }));
    }
    Ok(sources)
}

/// `name@version`; the last `@` counts, for npm's `@scope/name@1`.
fn at(text: &str, flag: &str) -> Result<(String, String), Error> {
    let parts = text.rsplit_once('@').filter(|(name, version)| !name.is_empty() && !version.is_empty());
    parts
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .ok_or_else(|| Error::usage(format!("{flag} `{text}` has no version")).with_remedy(format!("{flag} {text}@VERSION")))
}

/// A list of sources, one source a document, or `binaries:` with the list below it.
fn from_file(ctx: &Context, file: &str) -> Result<Vec<BinarySource>, Error> {
    let source = read_source(file)?;
    let base = ctx.settings.cwd.join(file);
    let base = if file == "-" { ctx.settings.cwd.as_path() } else { base.parent().unwrap_or(Path::new("/")) };
    let mut sources = Vec::new();
    for mut tree in document::parse(&source)? {
        for item in items(&mut tree) {
            expand_binary(&source, item, &ctx.settings.env, base)?;
            sources.push(read_one(&source, item)?);
        }
    }
    if sources.is_empty() {
        return Err(Error::usage(format!("{file} names no binary")));
    }
    Ok(sources)
}

fn items(tree: &mut Tree) -> Vec<&mut Tree> {
    let has_list = tree.get("binaries").is_some();
    let list = if has_list { tree.get_mut("binaries") } else { Some(tree) };
    match list {
        Some(Tree { value: document::Value::List(items), .. }) => items.iter_mut().collect(),
        Some(one) => vec![one],
        None => Vec::new(),
    }
}

fn read_one(source: &Source, tree: &Tree) -> Result<BinarySource, DocumentError> {
    decode(source, tree)
}
