//! Rings once when a file grows, is removed or is moved, and then not again until it is set anew.
//!
//! While a log grows, nobody listens: its writer pays nothing for being watched, however fast it writes, and we look at it by a
//! timer that runs only until it is quiet. One inotify instance for all files, since the kernel gives a user few of them.

#![allow(unsafe_code, reason = "registration with the event loop has no safe form")]

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use std::{collections::HashMap, io, mem::MaybeUninit, os::fd::OwnedFd, path::Path, sync::Arc};
use tokio::io::unix::AsyncFd;

#[derive(Debug)]
pub struct Alarm {
    inotify: AsyncFd<OwnedFd>,
    set: HashMap<i32, Arc<Path>>,
}

impl Alarm {
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // SAFETY: the descriptor is owned by the AsyncFd alone and stays open and the same until it is dropped.
        let inotify = unsafe { AsyncFd::register(inotify) }?;
        Ok(Self { inotify, set: HashMap::new() })
    }

    pub fn set(&mut self, path: &Arc<Path>) -> io::Result<()> {
        // ATTRIB tells of a name that went while the node holds the file open.
        let wanted = WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF | WatchFlags::ONESHOT;
        let watch = inotify::add_watch(self.inotify.get_ref(), &**path, wanted)?;
        self.set.insert(watch, Arc::clone(path));
        Ok(())
    }

    pub fn unset(&mut self, path: &Path) {
        let Some(watch) = self.set.iter().find(|(_, other)| other.as_ref() == path).map(|(watch, _)| *watch) else { return };
        self.set.remove(&watch);
        let _ = inotify::remove_watch(self.inotify.get_ref(), watch); // it may have rung just now
    }

    /// The files that have rung. Nothing is lost when this is dropped before it returns.
    pub async fn rung(&mut self) -> io::Result<Vec<Arc<Path>>> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let (watches, overflow) = read(ready.get_inner())?;
            ready.clear_ready();
            let paths: Vec<Arc<Path>> = match overflow {
                true => std::mem::take(&mut self.set).into_values().collect(),
                false => watches.iter().filter_map(|watch| self.set.remove(watch)).collect(),
            };
            if !paths.is_empty() {
                return Ok(paths);
            }
        }
    }
}

/// All that is there now, and whether the kernel had to drop some.
fn read(inotify: &OwnedFd) -> io::Result<(Vec<i32>, bool)> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    let (mut watches, mut overflow) = (Vec::new(), false);
    loop {
        match reader.next() {
            Ok(event) => {
                overflow |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                watches.push(event.wd());
            }
            Err(Errno::AGAIN) => return Ok((watches, overflow)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Write, time::Duration};
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(10);
    const QUIET: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn it_rings_once_and_again_when_it_is_set_again() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b): (Arc<Path>, Arc<Path>) = (dir.path().join("a").into(), dir.path().join("b").into());
        let mut file = File::create(&a).unwrap();
        File::create(&b).unwrap();
        let mut alarm = Alarm::new().unwrap();
        alarm.set(&a).unwrap();
        alarm.set(&b).unwrap();
        for _ in 0..100 {
            file.write_all(b"line\n").unwrap();
        }
        assert_eq!(timeout(SOON, alarm.rung()).await.unwrap().unwrap(), std::slice::from_ref(&a));
        file.write_all(b"line\n").unwrap();
        assert!(timeout(QUIET, alarm.rung()).await.is_err(), "it was not set again");
        alarm.set(&a).unwrap();
        file.write_all(b"line\n").unwrap();
        assert_eq!(timeout(SOON, alarm.rung()).await.unwrap().unwrap(), [a]);
        std::fs::remove_file(&b).unwrap();
        assert_eq!(timeout(SOON, alarm.rung()).await.unwrap().unwrap(), std::slice::from_ref(&b));
        assert!(alarm.set(&b).is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_held_open_rings_when_its_name_goes_and_an_unset_one_does_not_ring() {
        let dir = tempfile::tempdir().unwrap();
        let path: Arc<Path> = dir.path().join("a").into();
        let mut held = File::create(&path).unwrap();
        let mut alarm = Alarm::new().unwrap();
        alarm.set(&path).unwrap();
        alarm.unset(&path);
        held.write_all(b"line\n").unwrap();
        assert!(timeout(QUIET, alarm.rung()).await.is_err());
        alarm.set(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(timeout(SOON, alarm.rung()).await.unwrap().unwrap(), [path]);
    }
}
