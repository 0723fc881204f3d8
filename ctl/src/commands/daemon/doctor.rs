//! `daemon doctor`: what this machine lacks for devnetd, with the command that mends it. It starts nothing.

use super::install;
use crate::{client::Client, context::Context, error::Error, service};
use dvb_units::{SERVICE, UserManager};
use nix::sys::{resource, statvfs};
use serde::Serialize;
use std::{fs, path::Path};

const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// What the tests run on goes back to this one.
const OLDEST_SYSTEMD: u32 = 252;
/// A chain node with its databases holds hundreds.
const FILES: u64 = 4096;
const INOTIFY_INSTANCES: u64 = 128;
const INOTIFY_WATCHES: u64 = 8192;
const GIB: u64 = 1 << 30;
/// Leased ports come from 10000 up to the ephemeral range and from above it.
const LEASABLE_FROM: u64 = 10_000;
const LEASABLE_PORTS: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Clone, Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    findings: &'a [Finding],
}

/// What was seen; None where it could not be seen.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// Version and controllers, or why there is no user manager.
    manager: Option<Result<Manager, String>>,
    lingers: bool,
    user: String,
    uid: u32,
    installed: bool,
    /// Driver and message of the daemon, when one runs.
    daemon: Option<(String, String)>,
    open_files: Option<(u64, u64)>,
    inotify_instances: Option<u64>,
    inotify_watches: Option<u64>,
    home: String,
    free_bytes: Option<u64>,
    ephemeral: Option<(u64, u64)>,
    plugins: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Manager {
    version: String,
    controllers: String,
}

pub(super) async fn run(ctx: &Context) -> Result<(), Error> {
    let findings = judge(&look(ctx).await);
    if ctx.is_structured() {
        ctx.print_structured(&Report { findings: &findings })?;
    } else {
        print(ctx, &findings)?;
    }
    let failed: Vec<&str> = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).map(|finding| finding.check).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::failed("Unfit", format!("devnetd cannot do its work here: {}", failed.join(", ")))) }
}

fn print(ctx: &Context, findings: &[Finding]) -> Result<(), Error> {
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        ctx.print(format!("{verdict:<6}{}: {}", finding.check, finding.message))?;
        if let Some(remedy) = &finding.remedy {
            ctx.print(format!("      try: {remedy}"))?;
        }
    }
    Ok(())
}

async fn look(ctx: &Context) -> Facts {
    let settings = &ctx.settings;
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut range = range.split_whitespace().filter_map(|word| word.parse().ok());
    let existing = settings.home.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    Facts {
        manager: look_at_manager(settings.runtime_dir.as_deref()).await,
        lingers: install::lingers(ctx),
        user: install::user(ctx),
        uid: nix::unistd::getuid().as_raw(),
        installed: install::folder(ctx).is_ok_and(|folder| folder.join(SERVICE).exists()),
        daemon: look_at_daemon(ctx).await,
        open_files: resource::getrlimit(resource::Resource::RLIMIT_NOFILE).ok(),
        inotify_instances: number("/proc/sys/fs/inotify/max_user_instances"),
        inotify_watches: number("/proc/sys/fs/inotify/max_user_watches"),
        home: settings.home.display().to_string(),
        free_bytes: statvfs::statvfs(existing).ok().map(|disk| disk.blocks_available() * disk.fragment_size()),
        ephemeral: range.next().zip(range.next()),
        plugins: plugins(ctx),
    }
}

/// None without a runtime directory: then nobody keeps one for us.
async fn look_at_manager(runtime_dir: Option<&Path>) -> Option<Result<Manager, String>> {
    let manager = match UserManager::connect(runtime_dir?).await {
        Ok(manager) => manager,
        Err(error) => return Some(Err(error.to_string())),
    };
    let asked = async { Ok::<_, dvb_units::ManagerError>((manager.version().await?, manager.control_group().await?)) };
    Some(match asked.await {
        Ok((version, cgroup)) => {
            let file = Path::new("/sys/fs/cgroup").join(cgroup.trim_start_matches('/')).join("cgroup.controllers");
            Ok(Manager { version, controllers: fs::read_to_string(file).unwrap_or_default() })
        }
        Err(error) => Err(error.to_string()),
    })
}

async fn look_at_daemon(ctx: &Context) -> Option<(String, String)> {
    if service::rests(ctx).await {
        return None;
    }
    let status = Client::connect_running(ctx).await.ok()??.handshake(ctx).await.ok()?;
    Some((status.cgroup_driver, status.cgroup_message))
}

/// Beside dvbctl and in the home, where devnetd looks too.
fn plugins(ctx: &Context) -> Vec<String> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.canonicalize().ok()?.parent()?.to_owned()));
    let folders = beside.into_iter().chain([ctx.settings.home.join("plugins")]);
    let entries = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let names = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("dvb-plugin-")?.to_owned()));
    let mut names: Vec<String> = names.filter(|name| !name.contains('.')).collect();
    names.sort();
    names.dedup();
    names
}

fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![user_manager(facts), controllers(facts), linger(facts), unit(facts), daemon(facts)];
    findings.extend(limits(facts));
    findings.extend([disk(facts), ports(facts), plugin_list(facts)]);
    findings
}

fn ok(check: &'static str, message: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Ok, message: message.into(), remedy: None }
}

fn warn(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Warn, message: message.into(), remedy: Some(remedy.into()) }
}

fn fail(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Fail, ..warn(check, message, remedy) }
}

fn user_manager(facts: &Facts) -> Finding {
    const CHECK: &str = "user manager";
    let login = "log in by ssh or at a console, not by su or sudo";
    match &facts.manager {
        None => warn(CHECK, "none: XDG_RUNTIME_DIR names no folder", login),
        Some(Err(why)) => warn(CHECK, why.clone(), login),
        Some(Ok(manager)) => {
            let number = manager.version.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
            if number < OLDEST_SYSTEMD {
                return warn(CHECK, format!("systemd {} is older than any that devnetd was tried on", manager.version), "upgrade the distribution");
            }
            ok(CHECK, format!("systemd {}", manager.version))
        }
    }
}

fn controllers(facts: &Facts) -> Finding {
    const CHECK: &str = "delegation";
    let Some(Ok(manager)) = &facts.manager else {
        return warn(CHECK, "without a user manager nobody delegates cgroups to you", "see the line above");
    };
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !manager.controllers.split_whitespace().any(|word| word == *name)).collect();
    if missing.is_empty() {
        return ok(CHECK, format!("controllers {}", CONTROLLERS.join(", ")));
    }
    let message = format!("the user manager has not got {}: limits are not enforced; the mend ends all that you run", missing.join(", "));
    warn(CHECK, message, dvb_units::delegation_remedy(facts.uid))
}

fn linger(facts: &Facts) -> Finding {
    const CHECK: &str = "linger";
    match (&facts.manager, facts.lingers) {
        (_, true) => ok(CHECK, "nodes run on when you log out"),
        (Some(Ok(_)), false) => warn(CHECK, "systemd ends all nodes when you log out", dvb_units::linger_remedy(&facts.user)),
        (_, false) => ok(CHECK, "not needed without a user manager"),
    }
}

fn unit(facts: &Facts) -> Finding {
    const CHECK: &str = "service";
    match (&facts.manager, facts.installed) {
        (Some(Ok(_)), false) => warn(CHECK, "devnetd starts on demand only, not after a reboot", "dvbctl daemon install --now"),
        (Some(Ok(_)), true) => ok(CHECK, "installed"),
        _ => ok(CHECK, "starts on demand"),
    }
}

fn daemon(facts: &Facts) -> Finding {
    const CHECK: &str = "cgroups";
    match &facts.daemon {
        Some((driver, message)) if driver == "none" => warn(CHECK, format!("none: {message}"), "see above, then: dvbctl daemon restart"),
        Some((driver, message)) if message.contains("limits are not enforced") => {
            warn(CHECK, format!("{driver}: {message}"), "needed for spec.resources only; see above, then: dvbctl daemon restart")
        }
        Some((driver, message)) => ok(CHECK, format!("{driver}: {message}")),
        None => ok(CHECK, "devnetd does not run; it chooses its driver when it starts"),
    }
}

fn limits(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some((soft, hard)) = facts.open_files {
        let found = format!("{soft}, at most {hard}");
        let remedy = format!("ulimit -n {FILES}; for the service: systemctl --user edit devnetd, LimitNOFILE={FILES}");
        findings.push(if soft < FILES { warn("open files", found, remedy) } else { ok("open files", found) });
    }
    let inotify = [
        ("inotify instances", facts.inotify_instances, INOTIFY_INSTANCES, "max_user_instances"),
        ("inotify watches", facts.inotify_watches, INOTIFY_WATCHES, "max_user_watches"),
    ];
    for (check, found, wanted, key) in inotify {
        let Some(found) = found else { continue };
        let remedy = format!("sudo sysctl fs.inotify.{key}={}", wanted * 8);
        findings.push(if found < wanted { warn(check, found.to_string(), remedy) } else { ok(check, found.to_string()) });
    }
    findings
}

fn disk(facts: &Facts) -> Finding {
    const CHECK: &str = "disk";
    let Some(free) = facts.free_bytes else { return fail(CHECK, format!("{} cannot be looked at", facts.home), "dvbctl --home DIR") };
    let found = format!("{:.1} GiB free for {}", free as f64 / GIB as f64, facts.home);
    match free {
        free if free < GIB / 4 => fail(CHECK, found, "free some space, or dvbctl --home DIR on another disk"),
        free if free < 2 * GIB => warn(CHECK, found, "free some space, or dvbctl --home DIR on another disk"),
        _ => ok(CHECK, found),
    }
}

fn ports(facts: &Facts) -> Finding {
    const CHECK: &str = "ports";
    let Some((low, high)) = facts.ephemeral else { return warn(CHECK, "ip_local_port_range cannot be read", "mount /proc") };
    let leasable = low.saturating_sub(LEASABLE_FROM) + 65535_u64.saturating_sub(high);
    let found = format!("{leasable} ports can be leased beside the ephemeral {low}-{high}");
    if leasable < LEASABLE_PORTS { warn(CHECK, found, "sudo sysctl net.ipv4.ip_local_port_range='32768 60999'") } else { ok(CHECK, found) }
}

fn plugin_list(facts: &Facts) -> Finding {
    const CHECK: &str = "plugins";
    if facts.plugins.is_empty() {
        return fail(CHECK, "none beside dvbctl nor in the home", "cargo xtask install, or copy dvb-plugin-* beside devnetd");
    }
    ok(CHECK, facts.plugins.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit() -> Facts {
        Facts {
            manager: Some(Ok(Manager { version: "257.9-1".into(), controllers: "cpu memory pids\n".into() })),
            lingers: true,
            user: "me".into(),
            uid: 1000,
            installed: true,
            daemon: Some(("systemd".into(), "devnet.slice".into())),
            open_files: Some((65_536, 65_536)),
            inotify_instances: Some(8192),
            inotify_watches: Some(1 << 20),
            home: "/h".into(),
            free_bytes: Some(100 * GIB),
            ephemeral: Some((32_768, 60_999)),
            plugins: vec!["exec".into()],
        }
    }

    /// The checks that are not ok.
    fn bad(facts: &Facts) -> Vec<(&'static str, Verdict)> {
        let findings = judge(facts).into_iter().filter(|finding| finding.verdict != Verdict::Ok);
        findings
            .inspect(|finding| assert!(finding.remedy.is_some(), "{} has no mend", finding.check))
            .map(|found| (found.check, found.verdict))
            .collect()
    }

    #[test]
    fn a_machine_that_has_everything_is_ok() {
        assert_eq!(bad(&fit()), []);
    }

    #[test]
    fn each_lack_is_named_with_its_mend() {
        let check = |change: fn(&mut Facts), expect: &[(&str, Verdict)]| {
            let mut facts = fit();
            change(&mut facts);
            assert_eq!(bad(&facts), expect);
        };
        use Verdict::{Fail, Warn};
        check(|facts| facts.lingers = false, &[("linger", Warn)]);
        check(|facts| facts.installed = false, &[("service", Warn)]);
        check(|facts| facts.manager = Some(Ok(Manager { version: "249".into(), controllers: "cpu memory pids".into() })), &[("user manager", Warn)]);
        check(|facts| facts.manager = Some(Ok(Manager { version: "252".into(), controllers: "memory pids".into() })), &[("delegation", Warn)]);
        check(|facts| facts.manager = None, &[("user manager", Warn), ("delegation", Warn)]);
        check(|facts| facts.daemon = Some(("none".into(), "why".into())), &[("cgroups", Warn)]);
        const NO_LIMITS: &str = "cgroups below /c, without the controllers cpu: limits are not enforced";
        check(|facts| facts.daemon = Some(("cgroupfs".into(), NO_LIMITS.into())), &[("cgroups", Warn)]);
        check(|facts| facts.open_files = Some((1024, 4096)), &[("open files", Warn)]);
        check(|facts| facts.inotify_instances = Some(16), &[("inotify instances", Warn)]);
        check(|facts| facts.inotify_watches = Some(100), &[("inotify watches", Warn)]);
        check(|facts| facts.free_bytes = Some(GIB), &[("disk", Warn)]);
        check(|facts| facts.free_bytes = Some(1), &[("disk", Fail)]);
        check(|facts| facts.ephemeral = Some((10_000, 65_000)), &[("ports", Warn)]);
        check(|facts| facts.plugins.clear(), &[("plugins", Fail)]);
    }

    #[test]
    fn the_mends_of_a_user_manager_name_whom_root_helps() {
        let manager = Some(Ok(Manager { version: "257".into(), controllers: "memory pids".into() }));
        let remedies: Vec<String> = judge(&Facts { manager, lingers: false, ..fit() }).into_iter().filter_map(|finding| finding.remedy).collect();
        assert!(remedies[0].ends_with("sudo systemctl restart user@1000.service"), "{remedies:?}");
        assert_eq!(remedies[1], "loginctl enable-linger || sudo loginctl enable-linger me");
    }

    #[test]
    fn an_ordinary_range_of_ports_leaves_enough() {
        let found = ports(&fit());
        assert_eq!(found.message, "27304 ports can be leased beside the ephemeral 32768-60999");
    }
}
