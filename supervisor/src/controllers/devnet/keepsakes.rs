//! Small files that a plugin leaves for the next devnet of the same binary; each name ends in its content's digest.

use super::super::placing::hex;
use sha2::{Digest, Sha256};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Files of one binary; what comes later is not kept.
const MOST: usize = 32;
const LARGEST: u64 = 16 << 20;

/// The folder of one plugin and binary. It only saves work: what cannot be read or written is a line in the log.
pub(super) struct Keepsakes(PathBuf);

impl Keepsakes {
    /// Beside the file with what the plugin said of the binary.
    pub(super) fn beside(answer: &Path) -> Self {
        Self(answer.with_extension("kept"))
    }

    /// Copies what is kept and undamaged into `to`, under the plugin's names.
    pub(super) fn lay_out(&self, to: &Path) {
        if let Err(error) = self.try_lay_out(to) {
            tracing::warn!(path = %self.0.display(), %error, "cannot use what a plugin kept for a binary; it is made anew");
        }
    }

    /// Keeps the files of `from`.
    pub(super) fn take(&self, from: &Path) {
        if let Err(error) = self.try_take(from) {
            tracing::warn!(path = %self.0.display(), %error, "cannot keep what a plugin left for the next devnet");
        }
    }

    fn try_lay_out(&self, to: &Path) -> io::Result<()> {
        for file in files(&self.0)? {
            let stored = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((name, digest)) = stored.rsplit_once('.') else { continue };
            let bytes = fs::read(&file)?;
            if hex(&Sha256::digest(&bytes)) == digest {
                fs::create_dir_all(to)?;
                fs::write(to.join(name), bytes)?;
            } else {
                fs::remove_file(&file)?; // damaged: the next one takes its place
            }
        }
        Ok(())
    }

    fn try_take(&self, from: &Path) -> io::Result<()> {
        let mut room = MOST.saturating_sub(files(&self.0)?.len());
        for file in files(from)? {
            if room == 0 || fs::metadata(&file)?.len() > LARGEST {
                continue;
            }
            let bytes = fs::read(&file)?;
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let into = self.0.join(format!("{name}.{}", hex(&Sha256::digest(&bytes))));
            fs::create_dir_all(&self.0)?;
            fs::rename(&file, into)?;
            room -= 1;
        }
        Ok(())
    }
}

/// No folder has no files. In the order of their names, so that of two with one name the same counts each time.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(dir: &Path, files: &[(&str, &str)]) -> PathBuf {
        let from = dir.join("keep");
        fs::create_dir_all(&from).unwrap();
        for (name, text) in files {
            fs::write(from.join(name), text).unwrap();
        }
        from
    }

    #[test]
    fn what_one_devnet_left_lies_before_the_next_and_what_was_altered_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let keepsakes = Keepsakes::beside(&dir.path().join("cache/plugin-binary.json"));
        let laid = |name: &str| {
            keepsakes.lay_out(&dir.path().join("kept"));
            fs::read_to_string(dir.path().join("kept").join(name)).ok()
        };
        assert_eq!(laid("init.json"), None);
        keepsakes.take(&left(dir.path(), &[("init.json", "whole"), ("other.json", "x")]));
        assert_eq!((laid("init.json"), laid("other.json")), (Some("whole".into()), Some("x".into())));

        fs::remove_dir_all(dir.path().join("kept")).unwrap();
        let stored = files(&dir.path().join("cache/plugin-binary.kept")).unwrap();
        fs::write(&stored[0], "altered").unwrap();
        assert_eq!((laid("init.json"), laid("other.json")), (None, Some("x".into())));
        keepsakes.take(&left(dir.path(), &[("init.json", "again")]));
        assert_eq!(laid("init.json"), Some("again".into()));
    }

    #[test]
    fn a_plugin_that_leaves_ever_more_is_not_kept_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let keepsakes = Keepsakes::beside(&dir.path().join("a.json"));
        for index in 0..MOST + 3 {
            keepsakes.take(&left(dir.path(), &[(&format!("{index}"), "x")]));
        }
        assert_eq!(files(&dir.path().join("a.kept")).unwrap().len(), MOST);
    }
}
