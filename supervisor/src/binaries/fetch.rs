//! Gets a program from a URL: `file://` by copying, `http(s)://` with the system's curl. The digest is required and checked.

use super::{
    BinaryError, digest,
    tool::{self, Bench, Step},
};
use std::{
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(30 * 60);
const INSTALL_CURL: &str = "install curl (your distribution's package `curl`), or download the file and name it with binary: {path: ...}";

/// 64 hex digits, in lower case.
pub(super) fn check_digest(text: &str) -> Result<String, BinaryError> {
    let digest = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let good = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then_some(digest).ok_or_else(|| BinaryError::BadSource(format!("url with sha256 {text:?}, which is not 64 hex digits")))
}

/// The program, in the bench's folder, executable and of the digest that was asked for.
pub(super) async fn fetch(bench: &Bench, url: &str, sha256: &str) -> Result<PathBuf, BinaryError> {
    let to = bench.cwd.join(name_of(url));
    match url.split_once("://") {
        Some(("file", path)) => {
            let from = Path::new(path);
            if !from.is_file() {
                return Err(BinaryError::Missing { path: from.to_owned() });
            }
            tokio::fs::copy(from, &to).await.map_err(BinaryError::io("copy", from))?;
        }
        Some(("http" | "https", _)) => download(bench, url, &to).await?,
        _ => return Err(BinaryError::Unsupported { what: format!("{url} (only file, http and https are known)") }),
    }
    let subject = url.to_owned();
    let expected = sha256.to_owned();
    let work = move || -> Result<PathBuf, BinaryError> {
        let found = digest::hash(&to)?;
        if found != expected {
            return Err(BinaryError::WrongDigest { subject, expected, found });
        }
        fs::set_permissions(&to, Permissions::from_mode(0o755)).map_err(BinaryError::io("set the mode of", &to))?;
        Ok(to)
    };
    super::blocking(work).await
}

async fn download(bench: &Bench, url: &str, to: &Path) -> Result<(), BinaryError> {
    let path = bench.env.get("PATH").map_or("", String::as_str);
    let curl =
        tool::find("curl", path).ok_or_else(|| BinaryError::ToolMissing { tool: "curl", purpose: bench.subject.clone(), install: INSTALL_CURL })?;
    bench.lines.say(format!("downloading {url}"));
    let flags =
        ["--fail", "--silent", "--show-error", "--location", "--max-redirs", "10", "--proto", "=http,https", "--connect-timeout", "30", "--output"];
    let mut args: Vec<OsString> = flags.map(OsString::from).to_vec();
    args.extend([to.into(), "--".into(), url.into()]);
    bench.run(Step { name: "download", program: &curl, args, env: &[], timeout: TIMEOUT }).await.map(drop)
}

fn name_of(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.rsplit('/').next().filter(|name| !name.is_empty() && *name != "." && *name != "..").unwrap_or("program")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_program() {
        assert_eq!(name_of("https://example.org/v1/geth?x=/y#z"), "geth");
        assert_eq!(name_of("https://example.org/.."), "program");
        assert!(check_digest("sha256:AB").is_err());
        assert_eq!(check_digest(&"AB".repeat(32)).unwrap(), "ab".repeat(32));
    }
}
