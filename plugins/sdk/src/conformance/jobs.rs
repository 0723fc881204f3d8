//! Runs a plugin's jobs, as devnetd's runtime does in earnest.

use super::{Checked, Finding, fail};
use crate::pb;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::Path,
    process::Stdio,
    time::Duration,
};
use tokio::process::Command;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs them one after the other and keeps what they print below `out`. A job that fails is a finding.
pub(super) async fn run_all(jobs: &[pb::Job], env: &[(String, String)], out: &Path) -> Checked<Vec<pb::JobResult>> {
    let names: BTreeSet<_> = jobs.iter().map(|job| &job.name).collect();
    if names.len() != jobs.len() || names.iter().any(|name| name.is_empty() || name.contains('/')) {
        return fail(format!("jobs need a name each, and each its own: {names:?}"));
    }
    let mut results = Vec::new();
    for job in jobs {
        let result = run(job, env, out).await.map_err(|error| Finding::Fail(format!("job {} ({:?}): {error}", job.name, job.argv)))?;
        let ok = if job.ok_codes.is_empty() { vec![0] } else { job.ok_codes.clone() };
        if !result.exit_code.is_some_and(|code| u32::try_from(code).is_ok_and(|code| ok.contains(&code))) {
            let stderr = fs::read_to_string(&result.stderr_path).unwrap_or_default();
            return fail(format!("job {} ({:?}) ended with code {:?}, signal {:?}: {stderr}", job.name, job.argv, result.exit_code, result.signal));
        }
        results.push(result);
    }
    Ok(results)
}

async fn run(job: &pb::Job, env: &[(String, String)], out: &Path) -> io::Result<pb::JobResult> {
    use std::os::unix::process::ExitStatusExt as _;
    let Some((program, args)) = job.argv.split_first() else { return Err(io::Error::other("argv is empty")) };
    if !Path::new(program).is_absolute() {
        return Err(io::Error::other("argv[0] is no absolute path"));
    }
    fs::create_dir_all(out)?;
    let (stdout, stderr) = (out.join(format!("{}.out", job.name)), out.join(format!("{}.err", job.name)));
    #[expect(clippy::disallowed_methods, reason = "the suite runs outside of devnetd; the environment is cleared here too")]
    let mut command = Command::from(std::process::Command::new(program));
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(env.iter().cloned()).envs(&job.env);
    command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?).process_group(0).kill_on_drop(true);
    if !job.cwd.is_empty() {
        command.current_dir(&job.cwd);
    }
    let limit = if job.timeout_ms == 0 { DEFAULT_TIMEOUT } else { Duration::from_millis(job.timeout_ms.into()) };
    let status = tokio::time::timeout(limit, command.status()).await.map_err(|_| io::Error::other(format!("not done after {limit:?}")))??;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Ok(pb::JobResult {
        name: job.name.clone(),
        exit_code: status.code(),
        signal: status.signal(),
        stdout_path: text(&stdout),
        stderr_path: text(&stderr),
    })
}
