//! Tasks that live as long as the object whose work they do, and the pauses between their failures.

use crate::model::{Key, Uid};
use std::{
    collections::HashMap,
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// After the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Sessions by object; dropping an entry ends its task.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<Key, (Uid, DropGuard)>>);

impl Sessions {
    /// Begins a session, unless there is one of this very object already.
    pub(super) fn keep<F>(&self, key: &Key, uid: &Uid, session: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut sessions = self.lock();
        if sessions.get(key).is_some_and(|(of, _)| of == uid) {
            return;
        }
        let cancel = CancellationToken::new();
        sessions.insert(key.clone(), (uid.clone(), cancel.clone().drop_guard()));
        let session = session();
        tokio::spawn(async move { cancel.run_until_cancelled(session).await });
    }

    pub(super) fn end(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Uid, DropGuard)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Failures before this one, of a session that `lasted` so long.
pub(super) fn in_a_row(failures: u32, lasted: Duration) -> u32 {
    if lasted > LONGEST_PAUSE { 0 } else { failures }
}

pub(super) fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use tokio::sync::mpsc;

    #[test]
    fn pauses_double_up_to_a_limit_and_begin_anew_after_a_session_that_lasted() {
        assert_eq!([0, 1, 2].map(pause), [250, 500, 1_000].map(Duration::from_millis));
        assert_eq!([20, 1_000].map(pause), [LONGEST_PAUSE; 2]);
        assert_eq!(in_a_row(7, Duration::from_secs(1)), 7);
        assert_eq!(in_a_row(7, Duration::from_secs(3_600)), 0);
    }

    #[tokio::test]
    async fn an_object_has_one_session_and_another_of_its_name_ends_it() {
        let sessions = Sessions::default();
        let key = Key::new(Kind::Devnet, "default", "net");
        let begin = |uid: &str| {
            let (alive, ended) = mpsc::channel::<()>(1);
            sessions.keep(&key, &Uid(uid.into()), move || async move {
                let _alive = alive;
                std::future::pending().await
            });
            ended
        };
        let mut first = begin("1");
        assert_eq!(begin("1").recv().await, None, "a second one is not begun");
        assert!(first.try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Empty), "the first goes on");
        let mut second = begin("2");
        assert_eq!(first.recv().await, None);
        sessions.end(&key);
        assert_eq!(second.recv().await, None);
    }
}
