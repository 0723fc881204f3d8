//! Follows a log as it grows.

use super::{Item, LogError, LogReader, growth::Growth};
use futures::{Stream, stream};
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

struct Follower {
    reader: LogReader,
    growth: Growth,
    ended: CancellationToken,
    /// `ended` was seen before the last look at the file, so that look saw everything.
    last_look: bool,
    /// That was told.
    deleted: bool,
}

/// Lines from `offset` on, then each as it is written, also into a file that somebody deletes meanwhile. Ends when `ended` is cancelled
/// (the launch is over) and the rest was read, an unfinished line included. Errors end it too.
pub fn follow(path: PathBuf, offset: u64, ended: CancellationToken) -> impl Stream<Item = Result<Item, LogError>> + Send + 'static {
    let opened = async move {
        // First the watch, then the first look: nothing falls in between.
        tokio::task::spawn_blocking(move || {
            let growth = Growth::watch(&path)?;
            Ok(Box::new(Follower { reader: LogReader::open(&path, offset)?, growth, ended, last_look: false, deleted: false }))
        })
        .await
    };
    stream::unfold(Start::Opening(Box::pin(opened)), |state| async move {
        let mut follower = match state {
            Start::Opening(opened) => match opened.await {
                Ok(Ok(follower)) => follower,
                Ok(Err(error)) => return Some((Err(error), Start::Over)),
                // The daemon is shutting down.
                Err(_) => return None,
            },
            Start::Open(follower) => follower,
            Start::Over => return None,
        };
        let item = follower.next().await?;
        let over = item.is_err();
        Some((item, if over { Start::Over } else { Start::Open(follower) }))
    })
}

enum Start<F> {
    Opening(F),
    Open(Box<Follower>),
    Over,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Item, LogError>> {
        loop {
            // A log file is in the page cache or on a local disk: short reads, no thread of their own.
            match self.look() {
                Ok(None) if self.last_look => return None,
                Ok(None) => {}
                Ok(Some(item)) => return Some(Ok(item)),
                Err(error) => return Some(Err(error)),
            }
            tokio::select! {
                () = self.growth.changed() => {}
                () = self.ended.cancelled() => self.last_look = true,
            }
        }
    }

    fn look(&mut self) -> Result<Option<Item>, LogError> {
        if self.last_look {
            return self.reader.next_or_rest();
        }
        if let Some(item) = self.reader.next_whole()? {
            return Ok(Some(item));
        }
        let news = !self.deleted && self.reader.is_deleted()?;
        self.deleted |= news;
        Ok(news.then_some(Item::Deleted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt, stream::BoxStream};
    use std::{fs::File, io::Write, time::Duration};
    use tokio::time::timeout;

    struct Bench {
        dir: tempfile::TempDir,
        file: File,
        ended: CancellationToken,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let file = File::options().append(true).create(true).open(dir.path().join("log")).unwrap();
            Self { dir, file, ended: CancellationToken::new() }
        }
        fn path(&self) -> PathBuf {
            self.dir.path().join("log")
        }
        fn follow(&self, offset: u64) -> BoxStream<'static, Result<Item, LogError>> {
            follow(self.path(), offset, self.ended.clone()).boxed()
        }
        fn write(&mut self, text: &str) {
            self.file.write_all(text.as_bytes()).unwrap();
        }
    }

    async fn next(stream: &mut BoxStream<'static, Result<Item, LogError>>) -> Option<Item> {
        timeout(Duration::from_secs(10), stream.next()).await.expect("an item comes").map(Result::unwrap)
    }

    async fn line(stream: &mut BoxStream<'static, Result<Item, LogError>>) -> String {
        match next(stream).await {
            Some(Item::Line { bytes, partial: false, .. }) => String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn lines_come_as_they_are_written_to_every_follower() {
        let mut bench = Bench::new();
        bench.write("old\n");
        let (mut first, mut second) = (bench.follow(0), bench.follow(4));
        assert_eq!(line(&mut first).await, "old");
        for text in ["one", "two"] {
            bench.write(&format!("{text}\n"));
            assert_eq!(line(&mut first).await, text);
            assert_eq!(line(&mut second).await, text);
        }
        drop(second);
        bench.write("thr");
        bench.write("ee\n");
        assert_eq!(line(&mut first).await, "three");
    }

    #[tokio::test]
    async fn an_ended_launch_ends_the_stream_after_the_rest() {
        let mut bench = Bench::new();
        let mut stream = bench.follow(0);
        bench.write("last words");
        bench.ended.cancel();
        assert_eq!(next(&mut stream).await, Some(Item::Line { bytes: b"last words".into(), offset: 0, next: 10, partial: true }));
        assert_eq!(next(&mut stream).await, None);
    }

    #[tokio::test]
    async fn a_truncated_file_is_followed_on() {
        let mut bench = Bench::new();
        bench.write("before\n");
        let mut stream = bench.follow(0);
        assert_eq!(line(&mut stream).await, "before");
        bench.file.set_len(0).unwrap();
        assert_eq!(next(&mut stream).await, Some(Item::Truncated { at: 7, size: 0, next: 0 }));
        bench.write("after\n");
        assert_eq!(line(&mut stream).await, "after");
    }

    #[tokio::test]
    async fn a_deleted_file_is_told_once_and_read_on_as_long_as_it_is_written() {
        let mut bench = Bench::new();
        let mut stream = bench.follow(0);
        bench.write("one\n");
        assert_eq!(line(&mut stream).await, "one");
        std::fs::remove_file(bench.path()).unwrap();
        assert_eq!(next(&mut stream).await, Some(Item::Deleted));
        for text in ["two", "three"] {
            bench.write(&format!("{text}\n"));
            assert_eq!(line(&mut stream).await, text);
        }
        bench.write("rest");
        bench.ended.cancel();
        assert_eq!(next(&mut stream).await, Some(Item::Line { bytes: b"rest".into(), offset: 14, next: 18, partial: true }));
        assert_eq!(next(&mut stream).await, None);
    }

    #[tokio::test]
    async fn a_missing_file_is_an_error() {
        let mut stream = follow("/no/such/log".into(), 0, CancellationToken::new()).boxed();
        assert!(matches!(stream.next().await, Some(Err(_))));
        assert!(stream.next().await.is_none());
    }
}
