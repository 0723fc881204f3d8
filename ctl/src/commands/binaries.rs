//! `binaries`: the cache of node binaries: list, add (build or fetch), verify, evict.

use crate::{
    cli::{Format, parse_duration},
    client::Client,
    confirm::confirm,
    context::Context,
    document::{self, DocumentError, Source, Tree, absolute, decode, expand_binary, read_source},
    error::Error,
    render::{Named, print_items, progress::Progress},
};
use clap::Subcommand;
use dvb_proto::devnet::v1::{
    AddBinaryRequest, BinaryInfo, BinarySource, BinaryVerdict, CargoSource, Empty, EvictBinariesRequest, GitSource, GoModule, NpmSource,
    VerifyBinariesRequest,
};
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
        /// Digests or their beginnings, or names: wasmd, wasmd@v0.54.0
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Build or fetch binaries into the cache
    Add(Box<Add>),
    /// Hash binaries and the libraries that came with them anew; one that is not whole is exit 1
    Verify {
        /// Digests or their beginnings, or names: wasmd, wasmd@v0.54.0 [default: all]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Remove binaries that nobody uses
    Evict {
        /// Digests or their beginnings, or names: wasmd, wasmd@v0.54.0
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// All that were not used for so long, as in 720h
        #[arg(long, value_name = "TIME", value_parser = checked_age)]
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
    match args.verb.unwrap_or(Verb::List { names: Vec::new() }) {
        Verb::List { names } => list(ctx, &ctx.client().await?, &names).await,
        Verb::Add(add) => {
            let sources = sources(ctx, *add)?;
            add_all(ctx, &ctx.client().await?, sources).await
        }
        Verb::Verify { names } => verify(ctx, &names).await,
        Verb::Evict { names, older_than, yes } => evict(ctx, names, older_than, yes).await,
    }
}

/// As `--older-than` has it.
fn checked_age(text: &str) -> Result<String, String> {
    parse_duration(text).map(|_| text.to_owned())
}

pub(super) async fn list(ctx: &Context, client: &Client, names: &[String]) -> Result<(), Error> {
    let items = named(client.daemon().list_binaries(Empty {}).await?.into_inner().items, names)?;
    let named = if names.len() == 1 { Named::One } else { Named::Many };
    print_items(ctx, &items, named, "binaries")
}

/// Those that the names mean, or all; a name that means none is an error.
fn named(items: Vec<BinaryInfo>, names: &[String]) -> Result<Vec<BinaryInfo>, Error> {
    if let Some(none) = names.iter().find(|name| !items.iter().any(|binary| is_called(binary, name))) {
        return Err(not_cached(none));
    }
    Ok(items.into_iter().filter(|binary| names.is_empty() || names.iter().any(|name| is_called(binary, name))).collect())
}

/// By the beginning of its digest, by its program, or by the end of what its source says: `wasmd@v0.54.0`.
fn is_called(binary: &BinaryInfo, name: &str) -> bool {
    let program = Path::new(&binary.path).file_name().and_then(|program| program.to_str());
    let of_source = binary.source.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with([' ', '/']));
    !name.is_empty() && (binary.digest.starts_with(name) || program == Some(name) || of_source)
}

fn not_cached(name: &str) -> Error {
    Error::not_found(format!("no binary {name} is in the cache")).with_remedy("dvbctl binaries list")
}

async fn verify(ctx: &Context, names: &[String]) -> Result<(), Error> {
    let client = ctx.client().await?;
    let all = client.daemon().list_binaries(Empty {}).await?.into_inner().items;
    let digests = if names.is_empty() { Vec::new() } else { named(all, names)?.into_iter().map(|binary| binary.digest).collect() };
    let mut answers = client.daemon().verify_binaries(VerifyBinariesRequest { digests }).await?.into_inner();
    let mut verdicts: Vec<BinaryVerdict> = Vec::new();
    while let Some(verdict) = answers.message().await? {
        verdicts.push(verdict);
    }
    print_items(ctx, &verdicts, if names.len() == 1 { Named::One } else { Named::Many }, "binaries")?;
    let damaged: Vec<&BinaryVerdict> = verdicts.iter().filter(|verdict| verdict.state != "whole").collect();
    if damaged.is_empty() {
        return Ok(());
    }
    let error = Error::failed("BinaryUnusable", format!("not whole: {} of {} in the cache", damaged.len(), verdicts.len()));
    Err(damaged.into_iter().fold(error, |error, verdict| {
        let message = verdict.message.as_deref().unwrap_or_default();
        error.with_note(format!("  {message}\n    try: {}", verdict.remedy.as_deref().unwrap_or("dvbctl daemon logs")))
    }))
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

async fn evict(ctx: &Context, names: Vec<String>, older_than: Option<String>, yes: bool) -> Result<(), Error> {
    if names.is_empty() && older_than.is_none() {
        return Err(Error::usage("say which: names or digests, or --older-than").with_remedy("dvbctl binaries evict --older-than 720h"));
    }
    let client = ctx.client().await?;
    let known = client.daemon().list_binaries(Empty {}).await?.into_inner().items;
    let mut chosen = Vec::new();
    for name in &names {
        let mut fitting = known.iter().filter(|binary| is_called(binary, name));
        chosen.push(match (fitting.next(), fitting.next()) {
            (Some(one), None) => one,
            (None, _) => return Err(not_cached(name)),
            _ => return Err(Error::usage(format!("{name} is the name of several binaries")).with_remedy("their digests: dvbctl binaries list")),
        });
    }
    let what: Vec<String> = chosen.iter().map(|binary| format!("{:.12} ({})", binary.digest, binary.source)).collect();
    let what: Vec<String> = what.into_iter().chain(older_than.as_ref().map(|age| format!("all that nobody used for {age}"))).collect();
    let age = older_than.as_ref().map(|age| format!("--older-than {age}"));
    let command: Vec<String> = ["dvbctl binaries evict".to_owned()].into_iter().chain(names).chain(age).collect();
    confirm(ctx, yes, &format!("Evict {}.", what.join(", ")), &command.join(" "))?;
    let in_millis = |age: String| parse_duration(&age).map(|age| format!("{}ms", age.as_millis())).map_err(Error::usage);
    let older_than = older_than.map(in_millis).transpose()?;
    let digests = chosen.into_iter().map(|binary| binary.digest.clone()).collect();
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
