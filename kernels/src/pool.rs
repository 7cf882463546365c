//! The fixed thread pool.

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

    /// Runs something on a thread of the pool, so that dividing work inside of it wakes nobody who is
    /// not needed and switches no threads.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            None => f(),
            Some(pool) => pool.install(f),
        }
    }

    /// Runs both, perhaps at the same time.
    pub fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        match &self.pool {
            None => (a(), b()),
            Some(pool) => pool.join(a, b),
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
