//! The cache on real files, with a scripted `go` where builds are not the point, and a real one where they are.

use super::*;
use crate::{
    model::CargoSource,
    sys::{SystemClock, command},
};
use std::{
    os::unix::fs::{PermissionsExt, symlink},
    process::Output,
    sync::Mutex,
};
use tempfile::TempDir;

mod web;

/// A home of its own, and a folder for sources.
struct Bed {
    dir: TempDir,
    binaries: Binaries,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let binaries = Self::binaries(&dir);
        Self { dir, binaries }
    }
    /// As a daemon that starts. Its PATH is the bed's own `bin`, then the system's.
    fn binaries(dir: &TempDir) -> Binaries {
        let path = format!("{}:/usr/bin:/bin", dir.path().join("bin").display());
        let env = BTreeMap::from([("PATH".to_owned(), path), ("BED".to_owned(), dir.path().display().to_string())]);
        Binaries::with_environment(&Home::new(dir.path().join("home")), Arc::new(SystemClock), env)
    }
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn file(&self, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
    /// A program that this process may run. Another process writes it: a descriptor of ours that a fork of a test beside us inherits
    /// would make it "busy" (ETXTBSY).
    fn program(&self, name: &str, content: &str) -> PathBuf {
        let (text, path) = (self.file(&format!("{name}.txt"), content.as_bytes(), 0o644), self.at(name));
        run(Path::new("/usr/bin/install"), &["-m", "755", text.to_str().unwrap(), path.to_str().unwrap()]);
        path
    }
    async fn path(&self, path: &Path) -> Result<ResolvedBinary, BinaryError> {
        self.resolve(&BinarySource { path: Some(path.display().to_string()), ..BinarySource::default() }).await
    }
    async fn resolve(&self, source: &BinarySource) -> Result<ResolvedBinary, BinaryError> {
        self.binaries.resolve(source, &|_| {}).await
    }
}

fn run(program: &Path, args: &[&str]) -> Output {
    let output = command(program).args(args).env("PATH", "/usr/bin:/bin").output().unwrap();
    assert!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    output
}

fn module(version: &str) -> BinarySource {
    let module = GoModule { module: "example.org/chaind".into(), version: version.into(), ..GoModule::default() };
    BinarySource { go_module: Some(module), ..BinarySource::default() }
}

#[tokio::test]
async fn each_unusable_path_is_refused_in_its_own_words() {
    let bed = Bed::new();
    let mut elf = fs::read(std::env::current_exe().unwrap()).unwrap();
    elf.truncate(4096);
    let foreign: u16 = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    elf[18..20].copy_from_slice(&foreign.to_le_bytes());
    let host = std::env::consts::ARCH;
    let check = async |path: PathBuf, words: &str| {
        let error = bed.path(&path).await.unwrap_err();
        assert!(error.to_string().ends_with(words), "{error}\nnot: {words}");
        assert!(error.fault().remedy.is_some(), "{error} names no mend");
    };
    check(bed.at("nothing"), "does not exist").await;
    check("wasmd".into(), "is not absolute").await;
    check(bed.dir.path().to_owned(), "is a folder, not a regular file").await;
    check("/dev/null".into(), "is a device, not a regular file").await;
    check(bed.file("plain", b"#!/bin/sh\n", 0o644), "is not executable").await;
    check(bed.file("empty", b"", 0o755), "cannot be run: it is empty").await;
    check(bed.file("text", b"hello there", 0o755), "it is neither an ELF program nor a script with a #! line").await;
    check(bed.file("zip", b"PK\x03\x04....", 0o755), "it is an archive; unpack it first").await;
    check(bed.file("script", b"#!/no/such/shell\n", 0o755), "needs /no/such/shell, which this machine does not have").await;
    check(bed.file("foreign", &elf, 0o755), &format!("this machine is {host}")).await;
    assert!(bed.binaries.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_path_is_kept_by_content_and_rebuilding_it_changes_nothing_that_was_resolved() {
    let bed = Bed::new();
    let path = bed.file("chaind", b"#!/bin/sh\necho one\n", 0o755);
    let one = bed.path(&path).await.unwrap();
    assert_eq!(bed.path(&path).await.unwrap(), one);
    assert_eq!(one.path, bed.at("home/cache/binaries").join(&one.sha256).join("chaind"));
    bed.file("chaind", b"#!/bin/sh\necho two\n", 0o755);
    let two = bed.path(&path).await.unwrap();
    assert_ne!(one.sha256, two.sha256);
    assert_eq!(fs::read(&one.path).unwrap(), b"#!/bin/sh\necho one\n");
    symlink(&path, bed.at("link")).unwrap();
    assert_eq!(bed.path(&bed.at("link")).await.unwrap().path, two.path);
    assert_eq!(Bed::binaries(&bed.dir).reopen(&one.path).await.unwrap().sha256, one.sha256);
}

#[tokio::test]
async fn a_path_is_hashed_once_by_all_daemons_of_a_boot() {
    let bed = Bed::new();
    let path = bed.file("chaind", b"#!/bin/sh\necho one\n", 0o755);
    tokio::time::sleep(Duration::from_millis(150)).await; // a file that changed just now is not trusted
    let good = bed.path(&path).await.unwrap();
    let digests = bed.at("home/cache/binaries/digests.json");
    let known = fs::read_to_string(&digests).unwrap();
    assert!(known.contains(path.to_str().unwrap()) && known.contains(&good.sha256), "{known}");
    assert_eq!(
        Bed::binaries(&bed.dir).resolve(&BinarySource { path: Some(path.display().to_string()), ..Default::default() }, &|_| {}).await.unwrap(),
        good
    );
    fs::write(&path, "#!/bin/sh\necho two\n").unwrap();
    assert_ne!(bed.path(&path).await.unwrap().sha256, good.sha256);
}

#[tokio::test]
async fn an_altered_file_is_noticed_then_repaired_from_its_source_or_refused() {
    let bed = Bed::new();
    let path = bed.file("chaind", b"#!/bin/sh\necho one\n", 0o755);
    let good = bed.path(&path).await.unwrap();
    let spoil = || {
        fs::set_permissions(&good.path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&good.path, b"#!/bin/sh\necho bad\n").unwrap();
    };
    spoil();
    let error = bed.binaries.reopen(&good.path).await.unwrap_err();
    assert!(matches!(error, BinaryError::Altered { .. }), "{error}");
    assert!(matches!(bed.binaries.verify(&good.path).await, Err(BinaryError::Altered { .. })));
    assert_eq!(bed.path(&path).await.unwrap(), good);
    assert_eq!(fs::read(&good.path).unwrap(), b"#!/bin/sh\necho one\n");
    bed.binaries.reopen(&good.path).await.unwrap();
    fs::remove_file(&good.path).unwrap();
    assert!(matches!(bed.binaries.reopen(&good.path).await, Err(BinaryError::Gone { .. })));
    assert_eq!(bed.path(&path).await.unwrap(), good);
    let elsewhere = bed.binaries.reopen(&path).await;
    assert!(matches!(elsewhere, Err(BinaryError::Gone { .. })), "only paths of the cache are opened");
}

#[tokio::test]
async fn a_damaged_index_is_set_aside_and_binaries_in_use_still_open() {
    let bed = Bed::new();
    let path = bed.file("chaind", b"#!/bin/sh\n", 0o755);
    let good = bed.path(&path).await.unwrap();
    fs::write(bed.at("home/cache/binaries/index.json"), "{ not json").unwrap();
    let restarted = Binaries::new(&Home::new(bed.at("home")), Arc::new(SystemClock));
    assert_eq!(restarted.reopen(&good.path).await.unwrap().sha256, good.sha256);
    assert!(bed.at("home/cache/binaries/index.json.damaged").exists());
}

#[tokio::test]
async fn eviction_spares_what_is_in_use() {
    let bed = Bed::new();
    let one = bed.path(&bed.file("one", b"#!/bin/sh\n#1", 0o755)).await.unwrap();
    let two = bed.path(&bed.file("two", b"#!/bin/sh\n#2", 0o755)).await.unwrap();
    let in_use = BTreeMap::from([(one.sha256.clone(), BTreeSet::from(["mynet".to_owned()]))]);
    let evict = async |digest: &str| {
        let which = Eviction { digests: vec![digest.to_owned()], older_than: None };
        bed.binaries.evict(&which, &in_use).await
    };
    assert!(evict(&one.sha256).await.unwrap_err().to_string().ends_with("is used by mynet"));
    assert!(matches!(evict("0123").await, Err(BinaryError::NotCached { .. })));
    assert_eq!(evict(&two.sha256[..12]).await.unwrap().len(), 1);
    assert!(!two.path.exists() && one.path.exists());
    let old = Eviction { older_than: Some(Duration::from_secs(3600)), ..Eviction::default() };
    assert!(bed.binaries.evict(&old, &BTreeMap::new()).await.unwrap().is_empty());
    assert_eq!(bed.binaries.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_plugins_said_of_a_binary_goes_with_it_and_with_it_alone() {
    let bed = Bed::new();
    let gone = bed.path(&bed.program("chaind", "#!/bin/sh\necho 1\n")).await.unwrap();
    let other = "ab".repeat(32);
    for sha256 in [&gone.sha256, &other] {
        bed.file(&format!("home/cache/identities/plugin-{sha256}.json"), b"{}", 0o644);
        bed.file(&format!("home/cache/identities/plugin-{sha256}.kept/init.json.00"), b"{}", 0o644);
    }
    bed.binaries.evict(&Eviction { digests: vec![gone.sha256], older_than: None }, &BTreeMap::new()).await.unwrap();
    let left = fs::read_dir(bed.at("home/cache/identities")).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, [format!("plugin-{other}.json"), format!("plugin-{other}.kept")]);
}

#[tokio::test]
async fn sources_of_later_releases_say_so() {
    let bed = Bed::new();
    let cargo = CargoSource { name: "alto".into(), version: "1".into(), bin: None };
    let error = bed.resolve(&BinarySource { cargo: Some(cargo), ..BinarySource::default() }).await.unwrap_err();
    assert_eq!(error.to_string(), "cargo crate alto as a binary source comes with a later release");
    assert!(matches!(bed.resolve(&BinarySource::default()).await, Err(BinaryError::BadSource(_))));
}

#[tokio::test]
async fn a_file_url_is_taken_only_with_the_right_digest() {
    let bed = Bed::new();
    let path = bed.file("chaind", b"#!/bin/sh\necho url\n", 0o644);
    let digest = digest::hash(&path).unwrap();
    let source =
        |sha256: &str| BinarySource { url: Some(format!("file://{}", path.display())), sha256: Some(sha256.into()), ..BinarySource::default() };
    assert!(matches!(bed.resolve(&source(&"0".repeat(64))).await, Err(BinaryError::WrongDigest { .. })));
    let good = bed.resolve(&source(&digest)).await.unwrap();
    assert_eq!(good.sha256, digest);
    fs::remove_file(&path).unwrap();
    assert_eq!(bed.resolve(&source(&digest)).await.unwrap(), good, "what is cached needs no source");
}

/// A `go` that writes a line per call into `calls`, and runs the bed's `build` script where it would compile.
const SCRIPTED_GO: &str = r#"#!/bin/sh
echo "$GOTOOLCHAIN $*" >> "$BED/calls"
case "$1 $2" in
"mod download") echo "{\"Version\": \"v1.0.0\", \"GoMod\": \"$BED/theirs.mod\"}";;
"mod edit") echo '{"Go": "1.23.1"}';;
"mod tidy") cp go.mod "$BED/seen.mod";;
build*) out=$5; . "$BED/build";;
esac
"#;

fn scripted(build: &str) -> Bed {
    let bed = Bed::new();
    fs::create_dir(bed.at("bin")).unwrap();
    bed.program("bin/go", SCRIPTED_GO);
    bed.file("build", build.as_bytes(), 0o644);
    bed
}

const GOOD_BUILD: &str = "echo compiling >&2; printf '#!/bin/sh\\necho built\\n' > $out; chmod +x $out";

#[tokio::test]
async fn one_build_serves_many_waiters_and_later_ones_find_it() {
    let bed = scripted(GOOD_BUILD);
    let source = module("v1.0.0");
    let heard = Mutex::new(Vec::new());
    let progress = |line| heard.lock().unwrap().push(line);
    let asked: Vec<_> = (0..8).map(|_| bed.binaries.resolve(&source, &progress)).collect();
    let answers: Vec<_> = futures::future::join_all(asked).await.into_iter().map(Result::unwrap).collect();
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!((answers[0].source.as_str(), answers[0].version.as_str()), ("goModule example.org/chaind@v1.0.0", "v1.0.0"));
    let calls = fs::read_to_string(bed.at("calls")).unwrap();
    assert_eq!(calls.lines().filter(|line| line.starts_with("go1.23.1 build -v -mod=mod -o")).count(), 1, "{calls}");
    assert!(heard.lock().unwrap().iter().any(|line| line == "compiling"));
    assert!(fs::read_to_string(bed.at("seen.mod")).unwrap().contains("require example.org/chaind v1.0.0"));
    assert_eq!(Bed::binaries(&bed.dir).resolve(&source, &|_| {}).await.unwrap(), answers[0]);
    assert_eq!(fs::read_to_string(bed.at("calls")).unwrap(), calls, "a restarted daemon finds it in the index");
    assert!(builds(&bed).iter().all(|name| name.ends_with(".log")), "{:?}", builds(&bed));
}

fn builds(bed: &Bed) -> Vec<String> {
    fs::read_dir(bed.at("home/cache/builds")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_built_binary_that_was_altered_is_built_again() {
    let bed = scripted(GOOD_BUILD);
    let good = bed.resolve(&module("v1.0.0")).await.unwrap();
    fs::set_permissions(&good.path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&good.path, "#!/bin/sh\nevil\n").unwrap();
    assert_eq!(bed.resolve(&module("v1.0.0")).await.unwrap(), good);
    assert_eq!(fs::read_to_string(&good.path).unwrap(), "#!/bin/sh\necho built\n");
    let calls = fs::read_to_string(bed.at("calls")).unwrap();
    assert_eq!(calls.lines().filter(|line| line.contains(" build ")).count(), 2);
}

#[tokio::test]
async fn a_failed_build_shows_its_last_words_and_leaves_its_log() {
    let bed = scripted("for i in $(seq 50); do echo line $i >&2; done; exit 3");
    let error = bed.resolve(&module("v1.0.0")).await.unwrap_err();
    let BinaryError::StepFailed { step, tail, log, .. } = &error else { panic!("{error}") };
    assert_eq!(step, "go build");
    assert!(tail.starts_with("line 31\n") && tail.ends_with("line 50"), "{tail}");
    assert!(fs::read_to_string(log).unwrap().contains("line 1\n"));
    assert!(error.fault().remedy.unwrap().contains(".log"));
}

#[tokio::test]
async fn a_build_that_nobody_waits_for_dies_with_all_that_it_started() {
    let bed = scripted("sleep 1000 & echo $! > $BED/grandchild; echo waiting >&2; wait");
    let (said, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let progress = move |line: String| {
        let _ = said.send(line);
    };
    let source = module("v1.0.0");
    tokio::select! {
        outcome = bed.binaries.resolve(&source, &progress) => panic!("{outcome:?}"),
        () = async { while waiting.recv().await.is_some_and(|line| line != "waiting") {} } => {}
    }
    let pid: i32 = fs::read_to_string(bed.at("grandchild")).unwrap().trim().parse().unwrap();
    // It was killed, not yet necessarily buried: the kernel tells of no event for a grandchild, so this polls.
    let dead = |pid| procfs::process::Process::new(pid).and_then(|process| process.stat()).map_or(true, |stat| stat.state == 'Z');
    for _ in 0..200 {
        if dead(pid) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(dead(pid), "the grandchild {pid} lives on");
    assert!(builds(&bed).iter().all(|name| name.ends_with(".log")));
}

#[tokio::test]
async fn without_go_the_error_names_it_and_how_to_get_it() {
    let bed = Bed::new();
    let env = BTreeMap::from([("PATH".to_owned(), bed.at("bin").display().to_string())]);
    let binaries = Binaries::with_environment(&Home::new(bed.at("home")), Arc::new(SystemClock), env);
    let error = binaries.resolve(&module("v1.0.0"), &|_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "go is not installed; it is needed for goModule example.org/chaind@v1.0.0");
    assert!(error.fault().remedy.unwrap().contains("go.dev"));
    let odd = module("v1.0.0 -x");
    assert!(matches!(binaries.resolve(&odd, &|_| {}).await, Err(BinaryError::BadSource(_))));
}

#[tokio::test]
async fn libraries_from_outside_the_system_come_along() {
    let bed = Bed::new();
    let cc = Path::new("/usr/bin/cc");
    if !cc.exists() {
        println!("SKIP: libraries_from_outside_the_system_come_along: no /usr/bin/cc");
        return;
    }
    let library = bed.file("src/lib.c", b"int answer(void) { return 42; }\n", 0o644);
    let program = bed.file("src/main.c", b"int answer(void);\nint main(void) { return answer() == 42 ? 0 : 1; }\n", 0o644);
    let (folder, so, out) = (bed.at("src"), bed.at("src/libanswer.so"), bed.at("src/main"));
    run(cc, &["-shared", "-fPIC", "-Wl,-soname,libanswer.so", "-o", so.to_str().unwrap(), library.to_str().unwrap()]);
    let rpath = format!("-Wl,-rpath,{}", folder.display());
    run(cc, &["-o", out.to_str().unwrap(), program.to_str().unwrap(), so.to_str().unwrap(), &rpath]);
    let resolved = bed.path(&out).await.unwrap();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(resolved.env, Binaries::environment(&resolved.path));
    let status = retry_busy(|| command(&resolved.path).envs(&resolved.env).status());
    assert!(status.success(), "{status} with {:?}", resolved.env);
    bed.binaries.verify(&resolved.path).await.unwrap();
    // Its search path leads nowhere now: another home finds what lies beside it.
    let elsewhere = Bed::new().path(&resolved.path).await.unwrap();
    assert_eq!((elsewhere.sha256, elsewhere.env.len()), (resolved.sha256.clone(), 1));
    let copied = resolved.path.parent().unwrap().join("lib/libanswer.so");
    let whole = fs::read(&copied).unwrap();
    let stray = copied.with_file_name("libc.so.6");
    fs::write(&stray, "").unwrap();
    assert!(matches!(bed.binaries.reopen(&resolved.path).await, Err(BinaryError::Stray { path }) if path == stray));
    fs::remove_file(&stray).unwrap();
    fs::set_permissions(&copied, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&copied, [whole.as_slice(), b"more"].concat()).unwrap();
    for daemon in [&bed.binaries, &Bed::binaries(&bed.dir)] {
        assert!(matches!(daemon.reopen(&resolved.path).await, Err(BinaryError::Altered { path, .. }) if path == copied), "a launch would use it");
    }
    fs::write(bed.at("home/cache/binaries/index.json"), "{ not json").unwrap();
    assert!(matches!(Bed::binaries(&bed.dir).reopen(&resolved.path).await, Err(BinaryError::Altered { .. })), "also without an index");
    fs::write(&copied, &whole).unwrap();
    bed.binaries.reopen(&resolved.path).await.unwrap();
    fs::remove_file(&copied).unwrap();
    let error = bed.binaries.verify(&resolved.path).await.unwrap_err();
    assert!(matches!(&error, BinaryError::Gone { path } if *path == copied), "a lost library is a fault of its binary: {error}");
}

/// A fork of a test beside this one may hold the copy open for writing for an instant.
fn retry_busy<T>(mut run: impl FnMut() -> io::Result<T>) -> T {
    for _ in 0..100 {
        match run() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::sleep(Duration::from_millis(5)),
            outcome => return outcome.unwrap(),
        }
    }
    panic!("the program stayed busy");
}

#[tokio::test]
async fn a_small_module_is_built_by_the_real_go() {
    let bed = Bed::new();
    let binaries = Binaries::new(&Home::new(bed.at("home")), Arc::new(SystemClock));
    let hello = GoModule { module: "golang.org/x/example/hello".into(), version: "v0.0.0-20240925201653-1a5e218e5455".into(), ..GoModule::default() };
    let source = BinarySource { go_module: Some(hello), ..BinarySource::default() };
    let resolved = match binaries.resolve(&source, &|_| {}).await {
        Err(error @ BinaryError::ToolMissing { .. }) => return println!("SKIP: a_small_module_is_built_by_the_real_go: {error}"),
        Err(BinaryError::StepFailed { step, tail, .. }) if step == "go mod download" => {
            return println!("SKIP: a_small_module_is_built_by_the_real_go: the module proxy does not answer: {}", tail.replace('\n', " "));
        }
        outcome => outcome.unwrap(),
    };
    assert_eq!(resolved.path.file_name().unwrap(), "hello");
    let output = retry_busy(|| command(&resolved.path).output());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello, world!\n");
}
