//! How far a validator has signed, as far as its sign-state tells without knowing the chain.

use crate::model::{SignMark, Timestamp};
use sha2::{Digest, Sha256};
use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

/// What votes are counted by, the first first: a JSON file that names a height is read so.
const COUNTERS: [&str; 3] = ["height", "round", "step"];

/// From one mark to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drift {
    None,
    Ahead,
    Back,
}

/// None when nothing is there. Blocking.
pub(super) fn read(path: &Path) -> io::Result<Option<SignMark>> {
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        meta => meta?,
    };
    let mut digest = Sha256::new();
    let mut mark = SignMark { modified: modified(&meta), ..SignMark::default() };
    if meta.is_dir() {
        mark.modified = add_folder(&mut digest, path, Path::new(""))?.max(mark.modified);
    } else {
        let bytes = fs::read(path)?;
        mark.position = position(&bytes);
        digest.update(&bytes);
    }
    mark.digest = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(mark))
}

/// Positions decide where both have one; else the time of the last change. What is gone went back.
pub(super) fn drift(was: &SignMark, is: Option<&SignMark>) -> Drift {
    let Some(is) = is else { return Drift::Back };
    if was.digest == is.digest {
        return Drift::None;
    }
    let order = match was.position.is_empty() || is.position.is_empty() {
        true => is.modified.cmp(&was.modified),
        false => is.position.cmp(&was.position),
    };
    match (order, was.position.is_empty()) {
        (std::cmp::Ordering::Less, _) => Drift::Back,
        (std::cmp::Ordering::Equal, false) => Drift::None,
        _ => Drift::Ahead,
    }
}

/// `height 7, round 0, step 3`
pub(super) fn words(mark: Option<&SignMark>) -> String {
    match mark {
        None => "gone".into(),
        Some(mark) if mark.position.is_empty() => format!("last written at {}", mark.modified),
        Some(mark) => COUNTERS.iter().zip(&mark.position).map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", "),
    }
}

/// Numbers, or numbers as text; what comes after a missing one does not count.
fn position(bytes: &[u8]) -> Vec<u64> {
    let Ok(state) = serde_json::from_slice::<serde_json::Value>(bytes) else { return Vec::new() };
    let count = |name: &&str| state[*name].as_u64().or_else(|| state[*name].as_str()?.parse().ok());
    COUNTERS.iter().map_while(count).collect()
}

/// Names, sizes and times below `at`, in order; returns the latest time.
fn add_folder(digest: &mut Sha256, root: &Path, at: &Path) -> io::Result<Timestamp> {
    let mut names: Vec<_> = fs::read_dir(root.join(at))?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
    names.sort();
    let mut latest = Timestamp::default();
    for name in names {
        let below = at.join(name);
        let meta = fs::symlink_metadata(root.join(&below))?;
        if meta.is_dir() {
            latest = latest.max(add_folder(digest, root, &below)?);
            continue;
        }
        digest.update(below.as_os_str().as_bytes());
        digest.update(format!("\0{}\0{}.{}\0", meta.len(), meta.mtime(), meta.mtime_nsec()));
        latest = latest.max(modified(&meta));
    }
    Ok(latest)
}

fn modified(meta: &fs::Metadata) -> Timestamp {
    Timestamp::from_millis(meta.mtime() * 1_000 + meta.mtime_nsec() / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> SignMark {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, text).unwrap();
        read(&path).unwrap().unwrap()
    }

    #[test]
    fn heights_rounds_and_steps_are_read_as_numbers_or_text() {
        assert_eq!(file(r#"{"height":"12","round":0,"step":3,"signature":"x"}"#).position, [12, 0, 3]);
        assert_eq!(file(r#"{"height":7}"#).position, [7]);
        assert_eq!(file(r#"{"round":1}"#).position, Vec::<u64>::new());
        assert_eq!(file("opaque").position, Vec::<u64>::new());
    }

    #[test]
    fn a_vote_less_is_back_a_vote_more_is_ahead_and_another_signature_for_the_same_vote_is_neither() {
        let at = |height: u64, step: u64| file(&format!(r#"{{"height":{height},"round":0,"step":{step}}}"#));
        let check = |was: &SignMark, is: Option<&SignMark>, expect: Drift| assert_eq!(drift(was, is), expect);
        check(&at(10, 3), Some(&at(10, 3)), Drift::None);
        check(&at(10, 3), Some(&at(10, 2)), Drift::Back);
        check(&at(10, 3), Some(&at(9, 3)), Drift::Back);
        check(&at(10, 3), Some(&at(11, 1)), Drift::Ahead);
        check(&at(10, 3), Some(&file(r#"{"height":10,"round":0,"step":3,"signature":"y"}"#)), Drift::None);
        check(&at(10, 3), None, Drift::Back);
    }

    #[test]
    fn a_folder_goes_back_when_an_older_copy_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("consensus");
        let write = |name: &str, text: &str, second: u64| {
            fs::create_dir_all(state.join("votes")).unwrap();
            let file = state.join("votes").join(name);
            fs::write(&file, text).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second);
            fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        };
        let far = 4_000_000_000; // later than the folders' own times
        write("1", "a", far);
        let old = read(&state).unwrap().unwrap();
        assert_eq!(drift(&old, read(&state).unwrap().as_ref()), Drift::None);
        write("2", "b", far + 5);
        let new = read(&state).unwrap().unwrap();
        assert_eq!(drift(&old, Some(&new)), Drift::Ahead);
        assert_eq!(drift(&new, Some(&old)), Drift::Back);
        assert_eq!(read(&dir.path().join("nothing")).unwrap(), None);
    }
}
