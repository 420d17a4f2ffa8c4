//! Many small reads at the same time, in one command.

use std::{
    mem::take,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bb8_redis::redis::cmd;
use tokio::sync::oneshot;

use super::{Failure, Redis};
use crate::error::Result;

/// Reads that come while another command is under way go together in the next one, so that a read sees all that was written
/// before it was asked for. Cheap to clone; clones share it.
#[derive(Clone)]
pub(crate) struct Gather {
    redis: Redis,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Asked>,
    /// Whether somebody sends what waits.
    sending: bool,
}

struct Asked {
    keys: Vec<String>,
    answer: oneshot::Sender<Vec<Option<i64>>>,
}

impl Gather {
    pub(crate) fn new(redis: Redis) -> Self {
        Gather {
            redis,
            queue: Arc::default(),
        }
    }

    /// The numbers under these keys; at least one.
    ///
    /// # Errors
    /// `DEPENDENCY_UNAVAILABLE`.
    pub(crate) async fn get(&self, keys: &[String]) -> Result<Vec<Option<i64>>> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            keys: keys.to_vec(),
            answer,
        };
        let first = {
            let mut queue = lock(&self.queue);
            queue.waiting.push(asked);
            !std::mem::replace(&mut queue.sending, true)
        };
        if first {
            // By itself: whoever asked first may hang up, and others wait too.
            tokio::spawn(self.clone().send());
        }
        Ok(answered.await.map_err(|_| Failure::NoConnection)?)
    }

    /// Sends what waits until nothing does.
    async fn send(self) {
        loop {
            let together = {
                let mut queue = lock(&self.queue);
                queue.sending = !queue.waiting.is_empty();
                take(&mut queue.waiting)
            };
            if together.is_empty() {
                return;
            }
            let keys: Vec<&String> = together.iter().flat_map(|asked| &asked.keys).collect();
            // Who hears nothing knows that it failed.
            let Ok(values) = self.redis.query::<Vec<Option<i64>>>(cmd("MGET").arg(keys)).await else {
                continue;
            };
            let mut values = values.into_iter();
            for asked in together {
                let own = values.by_ref().take(asked.keys.len()).collect();
                let _ = asked.answer.send(own);
            }
        }
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}
