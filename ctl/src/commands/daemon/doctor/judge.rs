//! What the facts mean: one finding per check, each that is not ok with the command that mends it. Pure.

use super::{Facts, Finding, Verdict};
use dvb_proto::devnet::v1::PortLease;
use std::collections::BTreeMap;

const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// What the tests run on goes back to this one.
const OLDEST_SYSTEMD: u32 = 252;
/// A chain node with its databases holds hundreds.
const FILES: u64 = 4096;
const INOTIFY_INSTANCES: u64 = 128;
/// The daemon takes a few, a node may take its own.
const INOTIFY_SPARE: u64 = 8;
const INOTIFY_WATCHES: u64 = 8192;
const GIB: u64 = 1 << 30;
/// Less memory than this, and the next node may have the kernel end another one.
const SPARE_MEMORY: u64 = 512 << 20;
/// With more threads per processor that want to run, blocks and probes come late.
const BUSY: f64 = 4.0;
/// Leased ports come from 10000 up to the ephemeral range and from above it.
const LEASABLE_FROM: u64 = 10_000;
const LEASABLE_PORTS: u64 = 1000;
/// Of its own descriptors the daemon should have this share free.
const SPARE_SHARE: u64 = 5;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![user_manager(facts), controllers(facts), linger(facts), unit(facts), daemon(facts)];
    findings.extend(limits(facts));
    findings.extend(memory(facts));
    findings.extend(load(facts));
    findings.extend([disk(facts), ports(facts)]);
    findings.extend(strangers(facts));
    findings.extend(lendable(facts));
    findings.push(plugin_list(facts));
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
        None => warn(CHECK, "none: XDG_RUNTIME_DIR is not set", login),
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
    let Some(daemon) = &facts.daemon else { return ok(CHECK, "devnetd does not run; it chooses its driver when it starts") };
    let found = format!("{}: {}", daemon.cgroup_driver, daemon.cgroup_message);
    if daemon.cgroup_limits {
        return ok(CHECK, found);
    }
    let mend = if daemon.cgroup_remedy.is_empty() { "see above" } else { &daemon.cgroup_remedy };
    warn(CHECK, found, format!("needed for spec.resources only; {mend}, then: dvbctl daemon restart"))
}

fn limits(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![open_files(facts)];
    if let Some(max) = facts.inotify_instances {
        let used = facts.inotify_used.unwrap_or_default();
        let found = format!("{used} of {max} are in use by your processes");
        let remedy = format!("sudo sysctl fs.inotify.max_user_instances={}", INOTIFY_INSTANCES.max(max) * 8);
        let tight = max < INOTIFY_INSTANCES || max.saturating_sub(used) < INOTIFY_SPARE;
        findings.push(if tight { warn("inotify instances", found, remedy) } else { ok("inotify instances", found) });
    }
    if let Some(max) = facts.inotify_watches {
        let remedy = format!("sudo sysctl fs.inotify.max_user_watches={}", INOTIFY_WATCHES * 8);
        findings.push(if max < INOTIFY_WATCHES { warn("inotify watches", max.to_string(), remedy) } else { ok("inotify watches", max.to_string()) });
    }
    findings
}

/// The daemon's own limit and that of its nodes; without a daemon, what one would find that is started from here.
fn open_files(facts: &Facts) -> Finding {
    const CHECK: &str = "open files";
    let raise_hard = format!("echo '{} - nofile 65536' | sudo tee /etc/security/limits.d/devnetd.conf, then log in again", facts.user);
    let Some(files) = facts.daemon.as_ref().and_then(|daemon| daemon.open_files) else {
        let Some((soft, hard)) = facts.open_files else { return ok(CHECK, "the limit cannot be read") };
        let found = format!("{soft} for what is started from here, at most {hard}");
        return match (soft, hard) {
            (_, hard) if hard < FILES => warn(CHECK, found, raise_hard),
            (soft, _) if soft < FILES => warn(CHECK, found, format!("ulimit -n {FILES}, before devnetd is started")),
            _ => ok(CHECK, found),
        };
    };
    let number = |limit: Option<u64>| limit.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string());
    let found = format!("devnetd has {} open of {}, each of its nodes may have {}", files.used, number(files.soft), number(files.children));
    let restart = if facts.installed { "dvbctl daemon install && dvbctl daemon restart" } else { "ulimit -n 4096 && dvbctl daemon restart" };
    if files.hard.is_some_and(|hard| hard < FILES) || files.soft.is_some_and(|soft| soft.saturating_sub(files.used) < soft / SPARE_SHARE) {
        return warn(CHECK, found, format!("{raise_hard}; {restart}"));
    }
    if files.children.is_some_and(|soft| soft < FILES) {
        return warn(CHECK, found, restart);
    }
    ok(CHECK, found)
}

fn memory(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "memory";
    let (available, total) = facts.memory?;
    let gib = |bytes: u64| bytes as f64 / GIB as f64;
    let found = format!("{:.1} of {:.1} GiB can be had", gib(available), gib(total));
    let remedy = "dvbctl top shows who has it; dvbctl stop NAME, or spec.resources.memory";
    Some(if available < SPARE_MEMORY { warn(CHECK, found, remedy) } else { ok(CHECK, found) })
}

fn load(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "load";
    let (load, processors) = facts.load?;
    let found = format!("{load:.1} on {processors} processors");
    let remedy = "dvbctl top shows who works; stop what you do not need, or take a longer spec.blockTime";
    Some(if load > BUSY * processors as f64 { warn(CHECK, found, remedy) } else { ok(CHECK, found) })
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

/// Leased ports that somebody else has now: one finding for each of those.
fn strangers(facts: &Facts) -> Vec<Finding> {
    let mut by_holder: BTreeMap<(Option<u32>, String), Vec<&PortLease>> = BTreeMap::new();
    for port in facts.ports.iter().filter(|port| port.state == "taken") {
        by_holder.entry((port.holder_pid, port.holder.clone().unwrap_or_default())).or_default().push(port);
    }
    let finding = |((pid, holder), ports): ((Option<u32>, String), Vec<&PortLease>)| {
        let names: Vec<String> = ports.iter().map(|port| format!("{} ({}) of {} on {}", port.port, port.name, port.node, port.address)).collect();
        let remedy = match pid {
            Some(pid) => format!("kill {pid}, or give that program other ports"),
            None => format!("sudo ss -antup | grep :{}", ports[0].port),
        };
        let holder = if holder.is_empty() { "a process that cannot be seen from here" } else { &holder };
        warn("taken ports", format!("{holder} has {}", names.join(", ")), remedy)
    };
    by_holder.into_iter().map(finding).collect()
}

/// Leased ports that the kernel may give to somebody's outgoing connection while their node does not run.
fn lendable(facts: &Facts) -> Option<Finding> {
    let ports: Vec<&PortLease> = facts.ports.iter().filter(|port| port.ephemeral).collect();
    let names: Vec<String> = ports.iter().map(|port| format!("{} ({}) of {}", port.port, port.name, port.node)).collect();
    let (low, high) = facts.ephemeral.unwrap_or_default();
    let mut numbers: Vec<String> = ports.iter().map(|port| port.port.to_string()).collect();
    numbers.dedup();
    let reserved = facts.reserved_ports.split(',').filter(|word| !word.is_empty()).map(str::to_owned);
    let list: Vec<String> = reserved.chain(numbers).collect();
    let message = format!("outgoing connections get {low}-{high}, and so perhaps {}", names.join(", "));
    (!ports.is_empty()).then(|| warn("ephemeral ports", message, format!("sudo sysctl net.ipv4.ip_local_reserved_ports={}", list.join(","))))
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
    use super::{super::Manager, *};
    use dvb_proto::devnet::v1::{DaemonStatus, OpenFiles};

    fn port(port: u32, state: &str) -> PortLease {
        let (node, name, address) = ("net/web".into(), "http".into(), "127.64.3.1".into());
        PortLease { node, name, address, port, state: state.into(), ..PortLease::default() }
    }
    fn files(change: impl FnOnce(&mut OpenFiles)) -> Facts {
        let mut facts = fit();
        change(facts.daemon.as_mut().unwrap().open_files.as_mut().unwrap());
        facts
    }

    fn fit() -> Facts {
        Facts {
            manager: Some(Ok(Manager { version: "257.9-1".into(), controllers: "cpu memory pids\n".into() })),
            lingers: true,
            user: "me".into(),
            uid: 1000,
            installed: true,
            daemon: Some(DaemonStatus {
                cgroup_driver: "systemd".into(),
                cgroup_message: "devnet.slice".into(),
                cgroup_limits: true,
                open_files: Some(OpenFiles { soft: Some(65_536), hard: Some(524_288), children: Some(4096), used: 60 }),
                ..DaemonStatus::default()
            }),
            ports: vec![port(26_657, "held"), port(26_656, "free"), port(9090, "parked")],
            open_files: Some((1024, 524_288)),
            inotify_instances: Some(128),
            inotify_used: Some(20),
            inotify_watches: Some(1 << 20),
            memory: Some((6 * GIB, 8 * GIB)),
            load: Some((1.5, 2)),
            home: "/h".into(),
            free_bytes: Some(100 * GIB),
            ephemeral: Some((32_768, 60_999)),
            reserved_ports: String::new(),
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
        check(|facts| facts.daemon.as_mut().unwrap().cgroup_limits = false, &[("cgroups", Warn)]);
        check(|facts| *facts = files(|files| files.children = Some(1024)), &[("open files", Warn)]);
        check(|facts| *facts = files(|files| files.hard = Some(1024)), &[("open files", Warn)]);
        check(|facts| *facts = files(|files| files.used = 65_000), &[("open files", Warn)]);
        check(|facts| *facts = files(|files| *files = OpenFiles { used: 60, ..OpenFiles::default() }), &[]);
        check(|facts| facts.daemon = None, &[("open files", Warn)]);
        check(|facts| (facts.daemon, facts.open_files) = (None, Some((4096, 4096))), &[]);
        check(|facts| facts.inotify_instances = Some(16), &[("inotify instances", Warn)]);
        check(|facts| facts.inotify_used = Some(125), &[("inotify instances", Warn)]);
        check(|facts| facts.inotify_watches = Some(100), &[("inotify watches", Warn)]);
        check(|facts| facts.memory = Some((GIB / 4, 8 * GIB)), &[("memory", Warn)]);
        check(|facts| facts.load = Some((9.0, 2)), &[("load", Warn)]);
        check(|facts| (facts.memory, facts.load) = (None, None), &[]);
        check(|facts| facts.free_bytes = Some(GIB), &[("disk", Warn)]);
        check(|facts| facts.free_bytes = Some(1), &[("disk", Fail)]);
        check(|facts| facts.ephemeral = Some((10_000, 65_000)), &[("ports", Warn)]);
        check(|facts| facts.plugins.clear(), &[("plugins", Fail)]);
        check(|facts| facts.ports[1].state = "taken".into(), &[("taken ports", Warn)]);
        check(|facts| facts.ports[0].ephemeral = true, &[("ephemeral ports", Warn)]);
    }

    /// Message and mend of all that is found by this check.
    fn found(facts: &Facts, check: &str) -> Vec<(String, String)> {
        let findings = judge(facts).into_iter().filter(|finding| finding.check == check);
        findings.map(|finding| (finding.message, finding.remedy.unwrap_or_default())).collect()
    }

    #[test]
    fn limits_are_those_of_the_daemon_and_its_nodes_not_of_the_client() {
        let facts = files(|files| files.children = Some(1024));
        assert_eq!(facts.open_files, Some((1024, 524_288)));
        let message = "devnetd has 60 open of 65536, each of its nodes may have 1024";
        let check = |facts: &Facts, mend: &str| assert_eq!(found(facts, "open files"), [(message.to_owned(), mend.to_owned())]);
        check(&facts, "dvbctl daemon install && dvbctl daemon restart");
        check(&Facts { installed: false, ..facts }, "ulimit -n 4096 && dvbctl daemon restart");
    }

    #[test]
    fn what_a_driver_lacks_is_mended_as_the_daemon_says() {
        let mut facts = fit();
        let daemon = facts.daemon.as_mut().unwrap();
        // No word of the message counts.
        (daemon.cgroup_limits, daemon.cgroup_message, daemon.cgroup_remedy) = (false, "all is well".into(), "do this".into());
        let mend = "needed for spec.resources only; do this, then: dvbctl daemon restart";
        assert_eq!(found(&facts, "cgroups"), [("systemd: all is well".to_owned(), mend.to_owned())]);
    }

    #[test]
    fn strangers_are_named_once_each_with_all_the_ports_that_they_have() {
        let mut facts = fit();
        facts.ports.iter_mut().for_each(|port| port.state = "taken".into());
        for port in &mut facts.ports[..2] {
            (port.holder, port.holder_pid) = (Some("pid 42 (geth)".into()), Some(42));
        }
        let rest = "a process that cannot be seen from here has 9090 (http) of net/web on 127.64.3.1";
        let geth = "pid 42 (geth) has 26657 (http) of net/web on 127.64.3.1, 26656 (http) of net/web on 127.64.3.1";
        let expect = [(rest, "sudo ss -antup | grep :9090"), (geth, "kill 42, or give that program other ports")];
        assert_eq!(found(&facts, "taken ports"), expect.map(|(message, mend)| (message.to_owned(), mend.to_owned())));
    }

    #[test]
    fn ports_that_the_kernel_may_give_away_are_reserved_beside_those_that_are_already() {
        let mut facts = Facts { ports: vec![port(40_000, "held"), port(8080, "free"), port(41_000, "free")], ..fit() };
        facts.ports.iter_mut().for_each(|port| port.ephemeral = port.port >= 32_768);
        let message = "outgoing connections get 32768-60999, and so perhaps 40000 (http) of net/web, 41000 (http) of net/web";
        let check = |facts: &Facts, mend: &str| assert_eq!(found(facts, "ephemeral ports"), [(message.to_owned(), mend.to_owned())]);
        check(&facts, "sudo sysctl net.ipv4.ip_local_reserved_ports=40000,41000");
        facts.reserved_ports = "8000-8010,9000".into();
        check(&facts, "sudo sysctl net.ipv4.ip_local_reserved_ports=8000-8010,9000,40000,41000");
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
