//! A small disk for one home: a tmpfs in a user and mount namespace of its own, which takes no root.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The namespace lives as long as the process in it that we hold; both go with this.
pub(crate) struct SmallDisk {
    holder: Child,
    /// Where the disk is mounted, as its namespace sees it.
    at: PathBuf,
}

const FILLER: &str = "filler";
const BLOCK: usize = 64 * 1024;

impl SmallDisk {
    /// None where this kernel gives a user no namespaces.
    #[expect(clippy::disallowed_methods, reason = "tests drive programs; the ban is about the supervisor's children")]
    pub(crate) fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).ok()?;
        let script = r#"mount -t tmpfs -o "size=$1,mode=700" small "$0" && echo mounted && exec sleep infinity"#;
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(at).arg(size);
        let mut holder = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut said = String::new();
        let _ = BufReader::new(holder.stdout.take()?).read_line(&mut said); // nothing, when it could not
        let disk = Self { holder, at: at.to_owned() };
        (said.trim() == "mounted").then_some(disk)
    }
    /// `program` within the namespace.
    #[expect(clippy::disallowed_methods, reason = "tests drive programs; the ban is about the supervisor's children")]
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--user", "--mount", "--preserve-credentials", "--target", &self.holder.id().to_string(), "--"]).arg(program);
        command
    }
    /// Its root, as its namespace sees it.
    pub(crate) fn at(&self) -> &Path {
        &self.at
    }
    /// Its root, as we see it.
    pub(crate) fn root(&self) -> PathBuf {
        let inside = self.at.strip_prefix("/").unwrap_or(&self.at);
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(inside)
    }
    /// Not a byte fits any more, but for `spare` of them.
    pub(crate) fn fill(&self, spare: u64) {
        let mut filler = File::options().create(true).append(true).open(self.root().join(FILLER)).expect("a file on the small disk");
        for block in [vec![0; BLOCK], vec![0; 512]] {
            while match filler.write(&block) {
                Ok(_) => true,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => false,
                Err(error) => panic!("the small disk cannot be filled: {error}"),
            } {}
        }
        let length = filler.metadata().map_or(0, |about| about.len());
        filler.set_len(length.saturating_sub(spare)).expect("a file can be cut");
    }
    pub(crate) fn clear(&self) {
        let _ = fs::remove_file(self.root().join(FILLER)); // it was cleared before
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill(); // it may have ended by itself
        let _ = self.holder.wait();
    }
}
