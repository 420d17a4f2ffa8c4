//! Points in the code where a test can stop, break or kill the process, and switches that take a
//! protection away so that a test can show that it protects.
//!
//! All of it exists under debug assertions only: in a release build [`hit`] does nothing and
//! [`without`] is `false`, whatever the environment says.
//!
//! A test arms a point with `arm`, another process through `BOARD3_FAILPOINT`:
//! `relay.after_commit=kill@3,cache.fill=error` (`name=action[@n]`, actions `hold`, `panic`, `kill`
//! and `error`; `@n` fires at the n-th hit only). `BOARD3_WITHOUT=tx_guard,replay` names switches.
//! A name may be narrowed to one scope, `relay.after_commit/designs`, where the code uses [`hit_in`].

#[cfg(not(debug_assertions))]
pub use disabled::{check_env, hit, hit_in, without};
#[cfg(debug_assertions)]
pub use enabled::{Action, Guard, Without, arm, check_env, hit, hit_in, switch_off, without};

#[cfg(not(debug_assertions))]
mod disabled {
    use crate::error::Error;

    /// Does nothing.
    ///
    /// # Errors
    /// Never.
    #[inline(always)]
    pub async fn hit(_name: &str) -> Result<(), Error> {
        Ok(())
    }

    /// Does nothing.
    ///
    /// # Errors
    /// Never.
    #[inline(always)]
    pub async fn hit_in(_name: &str, _scope: &str) -> Result<(), Error> {
        Ok(())
    }

    /// Always `false`.
    #[inline(always)]
    #[must_use]
    pub const fn without(_name: &str) -> bool {
        false
    }

    /// Nothing is wrong: the variables are not read.
    ///
    /// # Errors
    /// Never.
    pub const fn check_env() -> Result<(), String> {
        Ok(())
    }
}

#[cfg(debug_assertions)]
mod enabled {
    use std::collections::HashMap;
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
    use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    use tokio::sync::watch;

    use crate::error::Error;

    /// The longest that a test waits for callers to arrive at a point.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// What happens to a caller who comes by.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Action {
        /// Waits until released; for ever if the environment armed it.
        Hold,
        /// Panics.
        Panic,
        /// Kills the process as `kill -9` does: nothing is flushed, nothing runs after it.
        Kill,
        /// Gives an internal error.
        Error,
    }

    struct Point {
        action: Action,
        /// Fires at this hit alone, counted from 1.
        only: Option<u32>,
        hits: AtomicU32,
        held: watch::Sender<usize>,
        released: watch::Sender<bool>,
    }

    impl Point {
        fn new(action: Action, only: Option<u32>) -> Arc<Point> {
            Arc::new(Point {
                action,
                only,
                hits: AtomicU32::new(0),
                held: watch::Sender::new(0),
                released: watch::Sender::new(false),
            })
        }

        async fn fire(&self, name: &str) -> Result<(), Error> {
            let hit = self.hits.fetch_add(1, Ordering::SeqCst) + 1;
            if self.only.is_some_and(|only| only != hit) {
                return Ok(());
            }
            match self.action {
                Action::Hold => self.hold().await,
                Action::Panic => panic!("failpoint {name}"),
                Action::Kill => kill(),
                Action::Error => return Err(Error::internal(format!("failpoint {name}"))),
            }
            Ok(())
        }

        async fn hold(&self) {
            /// Counts a caller out even if its future is dropped where it stands.
            struct Held<'a>(&'a watch::Sender<usize>);
            impl Drop for Held<'_> {
                fn drop(&mut self) {
                    self.0.send_modify(|held| *held -= 1);
                }
            }
            let mut released = self.released.subscribe();
            self.held.send_modify(|held| *held += 1);
            let _held = Held(&self.held);
            // The sender lives in `self`, so it cannot be gone.
            let _ = released.wait_for(|released| *released).await;
        }
    }

    fn kill() {
        let itself = std::process::id().to_string();
        let _ = Command::new("kill").args(["-9", &itself]).status();
        std::process::abort();
    }

    #[derive(Default)]
    struct Armed {
        points: HashMap<String, Arc<Point>>,
        without: HashMap<String, usize>,
    }

    /// How many points are armed: the common hit of a disarmed program takes no lock.
    static ARMED_POINTS: AtomicUsize = AtomicUsize::new(0);
    static ARMED: LazyLock<Mutex<Armed>> = LazyLock::new(|| {
        let armed = from_env().unwrap_or_else(|problem| panic!("{problem}"));
        ARMED_POINTS.store(armed.points.len(), Ordering::SeqCst);
        Mutex::new(armed)
    });

    fn armed() -> MutexGuard<'static, Armed> {
        ARMED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn from_env() -> Result<Armed, String> {
        let read = |name| std::env::var(name).unwrap_or_default();
        let without = read("BOARD3_WITHOUT");
        let without = without.split(',').map(str::trim).filter(|name| !name.is_empty());
        Ok(Armed {
            points: parse(&read("BOARD3_FAILPOINT"))?,
            without: without.map(|name| (name.to_owned(), 1)).collect(),
        })
    }

    fn parse(text: &str) -> Result<HashMap<String, Arc<Point>>, String> {
        let mut points = HashMap::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let wrong = || format!("BOARD3_FAILPOINT: `{item}` is not name=hold|panic|kill|error[@n]");
            let (name, action) = item.split_once('=').ok_or_else(wrong)?;
            let (action, only) = match action.split_once('@') {
                Some((action, nth)) => {
                    let nth = nth.parse().ok().filter(|nth| *nth > 0);
                    (action, Some(nth.ok_or_else(wrong)?))
                }
                None => (action, None),
            };
            let action = match action {
                "hold" => Action::Hold,
                "panic" => Action::Panic,
                "kill" => Action::Kill,
                "error" => Action::Error,
                _ => return Err(wrong()),
            };
            points.insert(name.to_owned(), Point::new(action, only));
        }
        Ok(points)
    }

    /// Whether the environment's failpoints can be read; configuration asks at the start.
    ///
    /// # Errors
    /// Names the item that is wrong.
    pub fn check_env() -> Result<(), String> {
        from_env().map(|_| ())
    }

    /// Comes by the point `name`: passes, unless somebody armed it.
    ///
    /// # Errors
    /// `INTERNAL` where [`Action::Error`] is armed.
    ///
    /// # Panics
    /// Where [`Action::Panic`] is armed.
    pub async fn hit(name: &str) -> Result<(), Error> {
        hit_in(name, "").await
    }

    /// As [`hit`], in a scope: one who armed `name/scope` stops these callers and no others.
    ///
    /// # Errors
    /// As [`hit`].
    ///
    /// # Panics
    /// As [`hit`].
    pub async fn hit_in(name: &str, scope: &str) -> Result<(), Error> {
        LazyLock::force(&ARMED);
        if ARMED_POINTS.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        let point = {
            let armed = armed();
            let scoped = armed.points.get(&format!("{name}/{scope}"));
            scoped.or_else(|| armed.points.get(name)).cloned()
        };
        match point {
            Some(point) => point.fire(name).await,
            None => Ok(()),
        }
    }

    /// Arms the point `name` (or `name/scope`) in this process until the guard is dropped.
    ///
    /// # Panics
    /// When it is armed already: two tests would stop each other's callers.
    pub fn arm(name: impl Into<String>, action: Action) -> Guard {
        arm_point(name.into(), Point::new(action, None))
    }

    fn arm_point(name: String, point: Arc<Point>) -> Guard {
        let mut armed = armed();
        let taken = armed.points.contains_key(&name);
        if !taken {
            armed.points.insert(name.clone(), point.clone());
            ARMED_POINTS.store(armed.points.len(), Ordering::SeqCst);
        }
        drop(armed);
        assert!(!taken, "failpoint {name} is armed already");
        Guard { name, point }
    }

    /// An armed point; dropping it disarms the point and releases who is held.
    #[must_use = "a dropped guard disarms the point"]
    pub struct Guard {
        name: String,
        point: Arc<Point>,
    }

    impl Guard {
        /// Fires at the `nth` hit from now on only (1 is the next one).
        pub fn only(self, nth: u32) -> Guard {
            let (name, action) = (self.name.clone(), self.point.action);
            drop(self);
            arm_point(name, Point::new(action, Some(nth)))
        }

        /// Waits until at least `callers` are held at once.
        ///
        /// # Panics
        /// When they are not within 30 s.
        pub async fn held(&self, callers: usize) {
            let mut held = self.point.held.subscribe();
            let enough = held.wait_for(|held| *held >= callers);
            let arrived = matches!(tokio::time::timeout(PATIENCE, enough).await, Ok(Ok(_)));
            let now = *self.point.held.borrow();
            assert!(arrived, "{now} of {callers} callers are held at {}", self.name);
        }

        /// How often callers came by.
        #[must_use]
        pub fn hits(&self) -> u32 {
            self.point.hits.load(Ordering::SeqCst)
        }

        /// Disarms the point and lets everybody go who is held.
        pub fn release(self) {
            drop(self);
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            let mut armed = armed();
            armed.points.remove(&self.name);
            ARMED_POINTS.store(armed.points.len(), Ordering::SeqCst);
            self.point.released.send_replace(true);
        }
    }

    /// Whether the protection `name` is switched off, by [`switch_off`] or by the environment.
    #[must_use]
    pub fn without(name: &str) -> bool {
        armed().without.contains_key(name)
    }

    /// Takes the protection `name` away until the returned value is dropped; may be nested.
    pub fn switch_off(name: impl Into<String>) -> Without {
        let name = name.into();
        *armed().without.entry(name.clone()).or_default() += 1;
        Without(name)
    }

    /// A protection that is off as long as this lives.
    #[must_use = "dropped, the protection is on again"]
    pub struct Without(String);

    impl Drop for Without {
        fn drop(&mut self) {
            let mut armed = armed();
            if let Some(times) = armed.without.get_mut(&self.0) {
                *times -= 1;
                if *times == 0 {
                    armed.without.remove(&self.0);
                }
            }
        }
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use super::*;

        #[tokio::test]
        async fn held_callers_wait_until_they_are_released() {
            let guard = arm("test.hold", Action::Hold);
            let calls: Vec<_> = (0..3).map(|_| tokio::spawn(hit("test.hold"))).collect();
            guard.held(3).await;
            assert!(calls.iter().all(|call| !call.is_finished()));
            calls[0].abort();
            let mut held = guard.point.held.subscribe();
            held.wait_for(|held| *held == 2).await.unwrap();
            guard.release();
            for call in calls.into_iter().skip(1) {
                call.await.unwrap().unwrap();
            }
            hit("test.hold").await.unwrap();
        }

        #[tokio::test]
        async fn a_point_fires_at_the_asked_hit_only() {
            let guard = arm("test.error", Action::Error).only(2);
            let mut failed = Vec::new();
            for _ in 0..4 {
                failed.push(hit("test.error").await.is_err());
            }
            assert_eq!(failed, [false, true, false, false]);
            assert_eq!(guard.hits(), 4);
        }

        #[tokio::test]
        async fn a_scoped_point_lets_other_scopes_pass() {
            let _guard = arm("test.scoped/one", Action::Error);
            assert!(hit_in("test.scoped", "one").await.is_err());
            hit_in("test.scoped", "two").await.unwrap();
            hit("test.scoped").await.unwrap();
        }

        #[tokio::test]
        #[should_panic(expected = "failpoint test.panic")]
        async fn an_armed_panic_panics() {
            let _guard = arm("test.panic", Action::Panic);
            let _ = hit("test.panic").await;
        }

        #[test]
        #[should_panic(expected = "armed already")]
        fn a_point_is_armed_once() {
            let _guard = arm("test.twice", Action::Error);
            let _again = arm("test.twice", Action::Error);
        }

        #[test]
        fn the_environment_is_read_or_refused_by_item() {
            let points = parse(" relay.after_commit=kill@3, cache.fill=error ,").unwrap();
            let relay = &points["relay.after_commit"];
            assert_eq!((relay.action, relay.only), (Action::Kill, Some(3)));
            let fill = &points["cache.fill"];
            assert_eq!((fill.action, fill.only), (Action::Error, None));
            for wrong in ["a", "a=", "a=stop", "a=hold@0", "a=hold@x"] {
                let problem = parse(wrong).err().unwrap();
                assert!(problem.contains(&format!("`{wrong}`")), "{problem}");
            }
        }

        #[test]
        fn a_switch_is_off_while_anybody_holds_it_off() {
            assert!(!without("test.guard"));
            let (one, two) = (switch_off("test.guard"), switch_off("test.guard"));
            drop(one);
            assert!(without("test.guard"));
            drop(two);
            assert!(!without("test.guard"));
        }
    }
}
