//! Logs of real processes: whatever happens to file, node or daemon, a reader gets each byte once, or is told what it cannot have.

use e2e::{Follower, Output, TestHome, is_alive};
use jiff::Timestamp;
use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// What compresses has the lowest priority: a loaded machine lets it wait for long.
const SOON: Duration = Duration::from_secs(300);

/// A devnet `net` whose only node `a` writes to its log what the test hands it, byte by byte, over restarts of the node.
struct Bench {
    home: TestHome,
    /// Held open, so that the node sees no end of it.
    pipe: File,
}

impl Bench {
    /// `settings`: of config.toml, below `[logs]`.
    fn up(settings: &str) -> Self {
        Self::up_in(TestHome::new(), settings)
    }

    fn up_in(home: TestHome, settings: &str) -> Self {
        let path = home.path().join("pipe");
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let pipe = File::options().read(true).write(true).open(&path).unwrap();
        fs::create_dir_all(home.home()).unwrap();
        fs::write(home.files().join("config.toml"), format!("[logs]\n{settings}\n")).unwrap();
        let bench = Self { home, pipe };
        bench.apply("");
        bench
    }

    /// With further fields of the spec, each a line.
    fn apply(&self, spec: &str) {
        self.apply_with("", spec);
    }

    fn apply_with(&self, service: &str, spec: &str) {
        self.home.ctl(&["up", &self.write(service, spec)]).ok();
    }

    /// A file with further fields of the spec, which begin in its line 8.
    fn document(&self, spec: &str) -> String {
        self.write("", spec)
    }

    fn write(&self, service: &str, spec: &str) -> String {
        let command = format!("[cat, '{}']", self.home.path().join("pipe").display());
        let services = format!("services: [{{name: a, command: {command}, restart: {{policy: always, maxRestarts: 100}}{service}}}]");
        let text = format!(
            "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: net}}\nspec:\n  plugin: exec\n  restart: {{backoff: 50ms}}\n  {services}\n{spec}"
        );
        self.home.file("devnet.yaml", &text)
    }

    fn say(&self, bytes: impl AsRef<[u8]>) {
        (&self.pipe).write_all(bytes.as_ref()).unwrap();
    }

    /// Of the newest launch.
    fn log(&self) -> PathBuf {
        self.logs().pop().expect("a launch has a log")
    }

    /// Oldest first: names are launch ids.
    fn logs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home.files().join("devnets/default/net/nodes/a/logs")).unwrap().map(|entry| entry.unwrap().path());
        let mut logs: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
        logs.sort();
        logs
    }

    /// All of the log in one, as `dvbctl logs ARGS net/a` prints it.
    #[track_caller]
    fn read(&self, args: &[&str]) -> Vec<u8> {
        let output = self.home.command(&[&["logs", "net/a"], args].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Kills the node, and waits until it has another process.
    #[track_caller]
    fn crash(&self) {
        let before = self.home.pid("net/a");
        kill(before, Signal::SIGKILL).unwrap();
        self.runs_anew(before);
    }

    #[track_caller]
    fn runs_anew(&self, before: Pid) {
        self.home.eventually("the node runs again", SOON, |home| home.pids("net").get("a").is_some_and(|pid| *pid != before && is_alive(*pid)));
    }

    #[track_caller]
    fn event(&self, reason: &str) -> String {
        let found = || {
            let events = self.home.json(&["events", "net/a", "--limit", "0"]);
            let items = events["items"].as_array().cloned().unwrap_or_default();
            items.iter().find(|event| event["reason"] == reason).map(|event| event["message"].as_str().unwrap_or_default().to_owned())
        };
        self.home.eventually(&format!("an event {reason}"), SOON, |_| found().is_some());
        found().unwrap()
    }
}

fn folder(log: &Path) -> PathBuf {
    let mut folder = log.as_os_str().to_owned();
    folder.push(".d");
    folder.into()
}

fn parts(log: &Path, ending: &str) -> usize {
    let names = fs::read_dir(folder(log)).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().ends_with(ending)).count()
}

/// Up to which offset the index of time has entries.
fn indexed(log: &Path) -> usize {
    let text = fs::read_to_string(folder(log).join("index")).unwrap_or_default();
    text.lines().next_back().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0)
}

/// What `--since` shows where lines have no dates: whole lines, all since then, and of those before at most what the index, which has an
/// entry for each MiB, cannot tell from them.
#[track_caller]
fn is_since(came: &[u8], all: &[u8], then: usize) {
    assert!(came.starts_with(b"line ") && came.len() >= all.len() - then, "{} bytes of {}", came.len(), all.len() - then);
    same(came, &all[all.len() - came.len()..]);
    assert!(came.len() <= all.len() - then + (1 << 20), "{} bytes too many", came.len() + then - all.len());
}

/// What a log takes on the disk, in bytes.
fn on_disk(log: &Path) -> u64 {
    let parts = fs::read_dir(folder(log)).into_iter().flatten().flatten().map(|entry| entry.path());
    parts.chain([log.to_owned()]).filter_map(|path| fs::metadata(path).ok()).map(|about| about.blocks() * 512).sum()
}

/// Exactly this has come since it began.
#[track_caller]
fn has(follower: &Follower, expect: &[u8]) {
    same(&follower.out.until("all of it", |bytes| bytes.len() >= expect.len()), expect);
}

fn end_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(300)..]).into_owned()
}

/// Without printing megabytes when they differ.
#[track_caller]
fn same(came: &[u8], expect: &[u8]) {
    if came != expect {
        let at = came.iter().zip(expect).take_while(|(a, b)| a == b).count();
        let around = |bytes: &[u8]| String::from_utf8_lossy(&bytes[at.saturating_sub(80)..bytes.len().min(at + 80)]).into_owned();
        panic!(
            "{} bytes came of {}; from byte {at} on they differ:\n--- came\n{}\n--- wanted\n{}",
            came.len(),
            expect.len(),
            around(came),
            around(expect)
        );
    }
}

/// Numbered lines: none can be missing, doubled or out of order unseen.
#[derive(Default)]
struct Lines {
    next: usize,
    all: Vec<u8>,
}

impl Lines {
    fn more(&mut self, count: usize) -> Vec<u8> {
        let text: Vec<u8> = (self.next..self.next + count).flat_map(|number| format!("line {number} {:60}\n", "of a node").into_bytes()).collect();
        self.next += count;
        self.all.extend_from_slice(&text);
        text
    }
}

#[test]
fn a_follower_gets_each_line_once_over_rotation_restarts_and_a_killed_daemon() {
    let bench = Bench::up("rotate = \"64Ki\"");
    // The one begins where the log does, the other where it ends.
    let followers = [Follower::of_logs(&bench.home, &["net/a"]), Follower::of_logs(&bench.home, &["net/a", "--tail", "0"])];
    let mut lines = Lines::default();
    bench.home.eventually("both follow", SOON, |_| {
        bench.say(lines.more(1));
        followers.iter().all(|follower| !follower.out.bytes().is_empty())
    });
    let first = followers[1].out.until("a line", |bytes| bytes.contains(&b'\n'));
    let missed = lines.all.windows(first.len()).position(|window| window == first).expect("it begins with some line");
    let all_have = |expect: &[u8]| {
        has(&followers[0], expect);
        has(&followers[1], &expect[missed..]);
    };
    for _ in 0..5 {
        bench.say(lines.more(5_000));
    }
    all_have(&lines.all);
    let first = bench.log();
    bench.home.eventually("it is rotated and compressed", SOON, |_| parts(&first, ".log.zst") > 0);

    bench.say("last words");
    bench.home.eventually("they are written", SOON, |_| fs::read(&first).unwrap().ends_with(b"last words"));
    bench.crash();
    lines.all.extend(b"last words\n");
    bench.say(lines.more(2_000));
    all_have(&lines.all);
    bench.home.ctl(&["restart", "net/a"]).ok();
    bench.say(lines.more(2_000));
    all_have(&lines.all);

    // While no daemon runs the node writes on, dies, and is started again by the next daemon.
    let before = bench.home.pid("net/a");
    bench.home.kill_daemon();
    followers.iter().for_each(|follower| follower.err.says("devnetd has gone"));
    bench.say(lines.more(3_000));
    let (log, end) = (bench.log(), lines.all.len());
    bench.home.eventually("they are written", SOON, |_| fs::read(&log).unwrap().ends_with(&lines.all[end - 100..]));
    kill(before, Signal::SIGKILL).unwrap();
    bench.home.eventually("it is dead", SOON, |_| !is_alive(before));
    bench.home.ctl(&["daemon", "start"]).ok();
    bench.runs_anew(before);
    bench.say(lines.more(3_000));
    all_have(&lines.all);
    bench.home.ctl(&["daemon", "reload"]).ok();
    bench.say(lines.more(3_000));
    all_have(&lines.all);
    same(&bench.read(&[]), &lines.all);

    let mut followers = followers;
    bench.home.ctl(&["delete", "net", "--yes"]).ok();
    assert!(followers.iter_mut().all(Follower::ends_well), "they end with the devnet");
}

#[test]
fn long_lines_and_rubbish_come_byte_by_byte() {
    let bench = Bench::up("rotate = \"64Ki\"");
    let follower = Follower::of_logs(&bench.home, &["net/a"]);
    let mut all = Vec::new();
    let mut say = |bytes: Vec<u8>| {
        bench.say(&bytes);
        all.extend(bytes);
    };
    for length in [(64 << 10) - 1, 64 << 10, (64 << 10) + 1, 300 << 10] {
        say([vec![b'x'; length], b"\n".to_vec()].concat());
    }
    // All that a byte can be, and zeros as a punched hole reads.
    let rubbish: Vec<u8> = (0..100_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    say(rubbish);
    say(vec![0; 200_000]);
    say(b"\r\n\xff\xfe\n\n\nthe end\n".to_vec());
    has(&follower, &all);
    let log = bench.log();
    bench.home.eventually("it is rotated", SOON, |_| parts(&log, ".log.zst") > 2);
    same(&bench.read(&[]), &all);
    same(&bench.read(&["--tail", "1"]), b"the end\n");
}

#[test]
fn a_log_that_somebody_deletes_is_told_with_the_mend_and_neither_node_nor_reader_ends() {
    let bench = Bench::up("");
    let follower = Follower::of_logs(&bench.home, &["net/a"]);
    bench.say("one\n");
    has(&follower, b"one\n");
    let node = bench.home.pid("net/a");
    fs::remove_file(bench.log()).unwrap();
    follower.err.says("net/a: ... somebody deleted its log; only those who follow it already see");
    bench.say("two\n");
    has(&follower, b"one\ntwo\n");
    let told = bench.event("LogDeleted");
    assert!(told.contains("dvbctl restart net/a"), "{told}");
    let late = bench.home.ctl(&["logs", "net/a"]).ok().says("somebody deleted its log").says("dvbctl restart net/a");
    assert_eq!(late.stdout, "");

    // The next daemon has no descriptor of it either.
    bench.home.kill_daemon();
    bench.home.ctl(&["daemon", "start"]).ok();
    follower.err.says("what its process wrote last and writes cannot be read");
    assert_eq!(bench.home.pid("net/a"), node, "the node ran on");
    bench.home.ctl(&["restart", "net/a"]).ok();
    bench.say("three\n");
    has(&follower, b"one\ntwo\nthree\n");
    same(&bench.read(&[]), b"three\n");
}

#[test]
fn a_log_that_somebody_truncates_is_told_and_goes_on_rotated_or_not() {
    for rotated in [false, true] {
        let bench = Bench::up(if rotated { "rotate = \"64Ki\"" } else { "" });
        let follower = Follower::of_logs(&bench.home, &["net/a"]);
        let mut lines = Lines::default();
        bench.say(lines.more(20_000));
        has(&follower, &lines.all);
        let log = bench.log();
        bench.home.eventually("the daemon knows that it was longer", SOON, |_| indexed(&log) > 0);
        bench.home.eventually("it is rotated", SOON, |_| !rotated || parts(&log, ".log.zst") > 2);
        File::create(&log).unwrap(); // as `: > file` does
        bench.say(lines.more(1));
        follower.err.says("lost: somebody truncated the log");
        let told = bench.event("LogLost");
        assert!(told.contains("somebody truncated the log"), "{told}");
        bench.say(lines.more(2_000));
        has(&follower, &lines.all);
        let Output { stdout, stderr, .. } = bench.home.ctl(&["logs", "net/a"]).ok();
        assert!(stdout.contains("line 0 ") == rotated && stdout.ends_with(&format!("{}\n", end_of(&lines.all[..lines.all.len() - 1]))), "{stderr}");
        assert_eq!(stderr.contains("truncated"), rotated, "what is gone of a rotated log keeps its place: {stderr}");
    }
}

#[test]
fn an_ended_launch_is_compressed_once_there_is_a_newer_one_and_reads_as_before() {
    let bench = Bench::up("");
    let mut lines = Lines::default();
    bench.say(lines.more(30_000));
    let first = bench.log();
    bench.home.eventually("its time is noted", SOON, |_| indexed(&first) + (1 << 20) > lines.all.len());
    let (between, early) = (Timestamp::now().to_string(), lines.all.len());
    bench.say(lines.more(30_000));
    let size = lines.all.len();
    bench.home.eventually("it is written", SOON, |_| fs::metadata(&first).unwrap().len() == size as u64);
    let written = fs::metadata(&first).unwrap().modified().unwrap();
    assert_eq!(parts(&first, ".log") + parts(&first, ".log.zst"), 0, "it is below the size at which a file is rotated");

    bench.crash();
    let about = || fs::metadata(&first).unwrap();
    bench.home.eventually("it is compressed", SOON, |_| on_disk(&first) * 4 < size as u64 && about().modified().unwrap() == written);
    assert_eq!(about().len(), size as u64);
    let id = first.file_stem().unwrap().to_str().unwrap();
    for args in [&["--previous"][..], &["--launch", id], &[]] {
        same(&bench.read(args), &lines.all);
    }
    is_since(&bench.read(&["--since", &between]), &lines.all, early);

    // The newest stays as it is for tools that know nothing of us, also when the next daemon looks at it.
    let old = lines.all.len();
    bench.say(lines.more(2_000));
    bench.home.eventually("it is written", SOON, |_| fs::metadata(bench.log()).unwrap().len() == (lines.all.len() - old) as u64);
    bench.home.ctl(&["stop", "net"]).ok();
    bench.home.kill_daemon();
    bench.home.ctl(&["daemon", "start"]).ok();
    same(&fs::read(bench.log()).unwrap(), &lines.all[old..]);
    let line_before = lines.all[..old - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    same(&bench.read(&["--tail", "2001"]), &lines.all[line_before..]);
    bench.home.ctl(&["start", "net"]).ok();
    let second = bench.logs()[1].clone();
    bench.home.eventually("now it is not the newest", SOON, |_| parts(&second, ".log.zst") == 1);
    same(&bench.read(&[]), &lines.all);
}

/// Lines of letters that hardly shrink.
fn noise(lines: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'0' + (state >> 58) as u8
    };
    (0..lines * 100).map(|at| if at % 100 == 99 { b'\n' } else { letter() }).collect()
}

#[test]
fn caps_of_a_spec_hold_for_a_running_devnet_without_a_restart() {
    const CAPS: &str = "  logs: {rotate: 64Ki, node: 512Ki}";
    let bench = Bench::up("");
    let (node, log) = (bench.home.pid("net/a"), bench.log());
    let text = noise(30_000);
    bench.say(&text);
    bench.home.eventually("it is written", SOON, |_| fs::metadata(&log).unwrap().len() == text.len() as u64);
    assert!(on_disk(&log) > 2 << 20, "the defaults keep it all");

    let file = bench.document(CAPS);
    let told = bench.home.ctl(&["apply", "-f", &file, "--dry-run"]).ok();
    assert!(told.stdout.contains("spec.logs") && told.stdout.contains("512Ki"), "{}", told.stdout);
    bench.apply(CAPS);
    bench.home.eventually("it fits", SOON, |_| on_disk(&log) <= 512 << 10);
    let Output { stdout, stderr, .. } = bench.home.ctl(&["logs", "net/a"]).ok().says("dropped by the log cap");
    assert!(!stdout.is_empty() && text.ends_with(stdout.as_bytes()), "the newest lines stay; {stderr}");
    // A service says better what it keeps.
    bench.apply_with(", logs: {node: 128Ki}", CAPS);
    bench.home.eventually("it fits again", SOON, |_| on_disk(&log) <= 128 << 10);
    assert_eq!((bench.home.pid("net/a"), bench.log()), (node, log), "and nothing was restarted");
    assert_eq!(bench.home.devnet("net")["status"]["observedGeneration"], 3);
}

#[test]
fn caps_that_cannot_be_are_refused_with_their_place() {
    let bench = Bench::up("");
    let refused = |spec: &str| bench.home.ctl(&["apply", "-f", &bench.document(spec)]);
    refused("  logs: {rotate: 1Ki}").exits(4).says("spec.logs.rotate").says("must be 64Ki or more").says("devnet.yaml:8:");
    refused("  logs: {rotate: 2Mi, devnet: 1Mi}").exits(4).says("spec.logs.devnet").says("must be at least spec.logs.rotate, which is 2Mi");
    refused("  logs: {age: 5s}").exits(4).says("spec.logs.age").says("must be 1m or more");
    refused("  logs: {node: much}").exits(4).says("`much` is not a size");
    refused("  logs: {rotat: 2Mi}").exits(2).says("rotat").says("rotate");
    refused("  nodes: [{name: a, logs: {devnet: 1Mi}}]").exits(4).says("spec.nodes[0].logs.devnet").says("it goes into spec.logs");
}

/// Bytes that a process has read with read calls, from wherever. None where the kernel does not count them.
fn has_read(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("rchar: "))?.trim().parse().ok()
}

#[test]
fn since_reads_little_of_a_log_of_more_than_100_mb_also_after_a_restart_of_the_daemon() {
    const FIFTH: usize = 300_000;
    let bench = Bench::up("");
    let log = bench.log();
    let mut lines = Lines::default();
    let mut end = 0;
    for _ in 0..5 {
        bench.say(&lines.more(FIFTH)[..]);
        end = lines.all.len();
        bench.home.eventually("its time is noted", SOON, |_| indexed(&log) + (1 << 20) > end);
    }
    assert!(end > 100_000_000);
    let since = Timestamp::now().to_string();
    bench.say(lines.more(1_000));
    bench.home.eventually("it is written, rotated and compressed", SOON, |_| {
        fs::metadata(&log).unwrap().len() == lines.all.len() as u64 && parts(&log, ".log") == 0 && on_disk(&log) < 20 << 20
    });
    for restarted in [false, true] {
        if restarted {
            bench.home.kill_daemon();
            bench.home.ctl(&["daemon", "start"]).ok();
        }
        let daemon = bench.home.daemon_pid().unwrap();
        if has_read(daemon).is_none() {
            println!("SKIP of the count: this kernel counts no reads");
            return;
        }
        // A daemon that has just come up also reads other things.
        bench.home.eventually("it reads little", SOON, |_| {
            let before = has_read(daemon).unwrap();
            is_since(&bench.read(&["--since", &since]), &lines.all, end);
            let read = has_read(daemon).unwrap() - before;
            println!("MEASURED: --since read {} KiB of a log of {} MB, a daemon restarted: {restarted}", read >> 10, end / 1_000_000);
            read < 4 << 20
        });
    }
}

#[test]
fn below_the_disk_floor_lines_go_without_being_copied_and_are_told_and_above_it_all_are_kept_again() {
    const SPARE: u64 = 6 << 20;
    let Some(home) = TestHome::on_small_disk("48m") else { return println!("SKIP: this kernel gives users no namespaces") };
    let bench = Bench::up_in(home, "rotate = \"64Ki\"\ndiskFloor = \"8Mi\"");
    let (node, log) = (bench.home.pid("net/a"), bench.log());
    let mut lines = Lines::default();
    bench.home.fill_disk(SPARE);
    // Twice of what fits, as fast as it is taken.
    while (lines.all.len() as u64) < 2 * SPARE {
        bench.say(lines.more(4000));
        let written = lines.all.len() as u64;
        bench.home.eventually("what is too much goes", SOON, |_| fs::metadata(&log).unwrap().len() == written && on_disk(&log) < 256 << 10);
    }
    assert!(bench.event("LogLost").contains("bytes of its log (offsets 0 to "));
    let read = bench.read(&[]);
    assert!(read.len() < 256 << 10 && lines.all.ends_with(&read), "{} bytes: {}", read.len(), end_of(&read));
    bench.home.ctl(&["logs", "net/a"]).ok().says("...");

    bench.home.clear_disk();
    let after: Vec<u8> = (0..20).flat_map(|_| lines.more(1000)).collect();
    bench.say(&after);
    bench.home.eventually("it is rotated", SOON, |_| parts(&log, ".log") + parts(&log, ".log.zst") > 0);
    bench.home.eventually("all of it is there", SOON, |_| bench.read(&[]).ends_with(&after));
    assert_eq!((bench.home.pid("net/a"), &bench.home.node("net/a")["status"]["restartCount"]), (node, &0.into()), "the node noticed nothing");
}
