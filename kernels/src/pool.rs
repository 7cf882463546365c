//! The fixed thread pool.

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often an idle thread looks for work before it lets other processes have its core for a moment.
const LOOKS: u32 = 16;

/// A pool of a fixed number of threads. Work is divided by halving, and callers divide outputs only,
/// so that no result depends on the number of threads.
pub struct Pool {
    threads: usize,
    pool: Option<rayon::ThreadPool>,
}

impl Pool {
    /// A pool of `threads` threads, at least one; a pool of one runs everything on its caller.
    ///
    /// # Errors
    /// Where the system gives no threads.
    pub fn new(threads: usize) -> Result<Pool, String> {
        let threads = threads.max(1);
        let pool = if threads == 1 {
            None
        } else {
            let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
            Some(builder.build().map_err(|e| format!("cannot start {threads} threads: {e}"))?)
        };
        Ok(Pool { threads, pool })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs something on a thread of the pool while the others stay awake: what is divided inside of it is taken up
    /// at once, where waking a thread would take longer than many kernels do.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let Some(pool) = &self.pool else { return f() };
        let done = &AtomicBool::new(false);
        pool.scope(|scope| {
            scope.spawn_broadcast(move |_, _| help(done));
            let _done = Raised(done);
            busy(f)
        })
    }

    /// Runs both, perhaps at the same time.
    pub fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        match &self.pool {
            None => (a(), b()),
            Some(pool) => pool.join(|| busy(a), || busy(b)),
        }
    }

    /// Calls `f` with every index below `tasks`, in any order and perhaps at the same time.
    pub fn each(&self, tasks: usize, f: &(impl Fn(usize) + Sync)) {
        self.each_in(0, tasks, f);
    }

    fn each_in(&self, from: usize, to: usize, f: &(impl Fn(usize) + Sync)) {
        if to - from <= 1 || self.pool.is_none() {
            return (from..to).for_each(f);
        }
        let middle = from + (to - from) / 2;
        self.join(|| self.each_in(from, middle, f), || self.each_in(middle, to, f));
    }
}

/// Raises a flag when it is dropped, which a panic does, too.
struct Raised<'f>(&'f AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

thread_local! {
    /// Whether this thread is in the middle of something. It then never helps until another run is done, which
    /// might wait for this one.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Calls something in whose middle the thread then is.
fn busy<R>(f: impl FnOnce() -> R) -> R {
    struct Outer(bool);
    impl Drop for Outer {
        fn drop(&mut self) {
            BUSY.set(self.0);
        }
    }
    let _outer = Outer(BUSY.replace(true));
    f()
}

/// Takes up whatever work there is until the flag is raised, on a thread that has nothing else to do.
fn help(done: &AtomicBool) {
    if BUSY.get() {
        return;
    }
    busy(|| {
        let mut looks = 0;
        while !done.load(Ordering::Acquire) {
            if rayon::yield_now() == Some(rayon::Yield::Executed) {
                looks = 0;
                continue;
            }
            looks += 1;
            if looks == LOOKS {
                looks = 0;
                std::thread::yield_now();
            }
            spin_loop();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::Pool;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Runs at the same time, within each other and after a panic, each of which divides work.
    #[test]
    fn runs_neither_wait_for_each_other_nor_for_ever() {
        let pool = Pool::new(3).unwrap();
        let count = AtomicUsize::new(0);
        let work = || {
            pool.run(|| {
                pool.each(20, &|_| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
                pool.run(|| pool.each(5, &|_| std::thread::yield_now()));
            });
        };
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| (0..50).for_each(|_| work()));
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 4 * 50 * 20);
        let panics = || pool.run(|| pool.each(3, &|i| assert!(i < 2)));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!(pool.run(|| 7), 7);
    }
}
