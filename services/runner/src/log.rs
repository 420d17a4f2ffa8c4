//! A stage's log: masked, kept in a file until it is stored, and cut with a word about it where it grows too long.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    diagnosis::Diagnosis,
    mask::{Masker, Secrets},
};

/// What one attempt's log may have.
const MOST: u64 = 64 * 1024 * 1024;
/// What is enough to be stored without waiting for more.
const PIECE: usize = 64 * 1024;
/// What one piece of it has at most, where much waits.
const MOST_PIECE: usize = 512 * 1024;
const CUT: &[u8] = b"\n[board3-runner: the log is cut here, it has reached 64 MiB]\n";

/// A log that is written, and at the same time read from where it is not stored yet.
pub(crate) struct Log {
    inner: Mutex<Inner>,
    changed: Notify,
}

struct Inner {
    file: File,
    most: u64,
    written: u64,
    stored: u64,
    cut: bool,
    ended: bool,
    masker: Masker,
    diagnosis: Diagnosis,
}

impl Log {
    /// An empty log in a new file.
    pub(crate) fn create(path: &Path, secrets: Secrets) -> io::Result<Log> {
        Self::limited(path, secrets, MOST)
    }

    fn limited(path: &Path, secrets: Secrets, most: u64) -> io::Result<Log> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Log {
            inner: Mutex::new(Inner {
                file,
                most,
                written: 0,
                stored: 0,
                cut: false,
                ended: false,
                masker: Masker::new(secrets),
                diagnosis: Diagnosis::default(),
            }),
            changed: Notify::new(),
        })
    }

    /// Adds what can be read now.
    pub(crate) fn copy(&self, from: &mut impl Read) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            match from.read(&mut piece)? {
                0 => return Ok(()),
                read => self.push(&piece[..read])?,
            }
        }
    }

    /// Adds a line of the runner's own.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        self.settle()?;
        self.push(format!("{text}\n").as_bytes())?;
        self.settle()
    }

    /// Adds bytes; nothing of them that may begin a secret is written before it is known to be none.
    pub(crate) fn push(&self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner();
        let shown = inner.masker.push(bytes);
        inner.write(&shown)?;
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// Nothing follows what was added: also what was held back is written.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let mut inner = self.inner();
        let shown = inner.masker.finish();
        inner.write(&shown)?;
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// The first errors in what was added since the last question.
    pub(crate) fn diagnosis(&self) -> Option<String> {
        self.inner().diagnosis.take()
    }

    /// Nothing is added any more.
    pub(crate) fn end(&self) {
        self.inner().ended = true;
        self.changed.notify_one();
    }

    /// How many bytes it has.
    pub(crate) fn written(&self) -> u64 {
        self.inner().written
    }

    /// The next bytes to store and their offset, none when all are stored and none follow.
    ///
    /// Waits for the first byte, and after that for more only as long as `patience` goes on.
    pub(crate) async fn next(&self, patience: impl Future<Output = ()>) -> io::Result<Option<(u64, Vec<u8>)>> {
        loop {
            match self.state() {
                (0, true) => return Ok(None),
                (0, false) => self.changed.notified().await,
                (_, true) => break,
                (_, false) => {
                    tokio::select! {
                        () = patience => {}
                        () = self.full() => {}
                    }
                    break;
                }
            }
        }
        self.piece().map(Some)
    }

    /// Bytes up to here are stored, and none further: what is behind is given out again.
    pub(crate) fn stored(&self, offset: u64) {
        let mut inner = self.inner();
        inner.stored = offset.min(inner.written);
    }

    async fn full(&self) {
        loop {
            let (waiting, ended) = self.state();
            if ended || waiting >= PIECE as u64 {
                return;
            }
            self.changed.notified().await;
        }
    }

    fn state(&self) -> (u64, bool) {
        let inner = self.inner();
        (inner.written - inner.stored, inner.ended)
    }

    fn piece(&self) -> io::Result<(u64, Vec<u8>)> {
        let inner = self.inner();
        let waiting = usize::try_from(inner.written - inner.stored).unwrap_or(MOST_PIECE);
        let mut piece = vec![0; waiting.min(MOST_PIECE)];
        inner.file.read_exact_at(&mut piece, inner.stored)?;
        Ok((inner.stored, piece))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&mut self, shown: &[u8]) -> io::Result<()> {
        // What Terraform says last is told even where the log has no room for it.
        self.diagnosis.push(shown);
        if self.cut {
            return Ok(());
        }
        let room = self.most - CUT.len() as u64 - self.written;
        if shown.len() as u64 <= room {
            return self.append(shown);
        }
        self.cut = true;
        let fits = usize::try_from(room).unwrap_or(shown.len());
        self.append(&shown[..fits])?;
        self.append(CUT)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn log(most: u64) -> (tempfile::TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::of("b3k_secretsecret", "job", "b3j_secretsecret");
        let log = Log::limited(&dir.path().join("log"), secrets, most).unwrap();
        (dir, log)
    }

    #[tokio::test]
    async fn what_is_not_stored_is_given_out_again_and_what_is_stored_is_not() {
        let (_dir, log) = log(MOST);
        log.push(b"one two").unwrap();
        assert_eq!(log.next(ready(())).await.unwrap(), Some((0, b"one two".to_vec())));
        assert_eq!(log.next(ready(())).await.unwrap(), Some((0, b"one two".to_vec())));
        log.stored(4);
        assert_eq!(log.next(ready(())).await.unwrap(), Some((4, b"two".to_vec())));
        log.stored(2);
        assert_eq!(log.next(ready(())).await.unwrap(), Some((2, b"e two".to_vec())));
        log.stored(700);
        log.end();
        assert_eq!(log.next(pending()).await.unwrap(), None);
        assert_eq!(log.written(), 7);
    }

    #[tokio::test]
    async fn a_full_piece_and_the_end_wait_for_nothing() {
        let (_dir, log) = log(MOST);
        log.push(&vec![b'x'; MOST_PIECE + 1]).unwrap();
        let (offset, piece) = log.next(pending()).await.unwrap().unwrap();
        assert_eq!((offset, piece.len()), (0, MOST_PIECE));
        log.stored((MOST_PIECE + 1 - PIECE) as u64);
        let (_, piece) = log.next(pending()).await.unwrap().unwrap();
        assert_eq!(piece.len(), PIECE);
        log.stored(MOST_PIECE as u64);
        log.end();
        assert_eq!(
            log.next(pending()).await.unwrap(),
            Some((MOST_PIECE as u64, b"x".to_vec()))
        );
    }

    #[tokio::test]
    async fn no_secret_reaches_the_file_and_a_line_follows_what_was_held_back() {
        let (dir, log) = log(MOST);
        log.push(b"see b3j_secret").unwrap();
        log.push(b"secret or b3").unwrap();
        log.line("next b3k_secretsecret").unwrap();
        let kept = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert_eq!(kept, "see [masked] or b3next [masked]\n");
    }

    #[test]
    fn a_log_that_grows_too_long_says_so_and_still_tells_errors() {
        let (dir, log) = log(100);
        log.push(&[b'x'; 90]).unwrap();
        log.push(b"\nError: too much\n").unwrap();
        assert_eq!(log.written(), 100);
        let kept = std::fs::read(dir.path().join("log")).unwrap();
        assert!(kept.ends_with(CUT) && kept.starts_with(b"xxx"));
        assert_eq!(log.diagnosis().as_deref(), Some("Error: too much"));
    }
}
