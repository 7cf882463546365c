//! The fixed thread pool.
//!
//! Steps of small models take microseconds, as long as waking a thread does. So who runs one is one of the pool's
//! threads, and need not be woken to go on; the others look for work as long as a run goes on and a moment longer;
//! and what is divided lies in one queue, which nobody touches while it is empty.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a thread looks for work before it lets other processes have its core for a moment.
const LOOKS: u32 = 64;
/// How long threads go on looking after a run: training steps follow each other.
const PATIENCE: Duration = Duration::from_micros(100);

/// A pool of a fixed number of threads, of which the caller is one. Work is divided by halving, and callers divide
/// outputs only, so that no result depends on the number of threads.
pub struct Pool {
    threads: usize,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` threads, at least one; a pool of one runs everything on its caller.
    ///
    /// # Errors
    /// Where the system gives no threads.
    pub fn new(threads: usize) -> Result<Pool, String> {
        let threads = threads.max(1);
        let mut pool = Pool { threads, shared: Arc::default(), workers: Vec::new() };
        for _ in 1..threads {
            let shared = pool.shared.clone();
            let worker = thread::Builder::new().name("pam".to_owned()).spawn(move || shared.work());
            // Threads that were started end with the pool.
            pool.workers.push(worker.map_err(|e| format!("cannot start {threads} threads: {e}"))?);
        }
        Ok(pool)
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs something while the other threads stay awake: what is divided inside of it is taken up at once, where
    /// waking a thread would take longer than many kernels do.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        if self.threads == 1 || RUNNING.get() {
            return f();
        }
        let _run = Run::start(&self.shared);
        f()
    }

    /// Runs both, perhaps at the same time.
    pub fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        if self.threads == 1 {
            return (a(), b());
        }
        self.run(|| self.divide(a, b))
    }

    fn divide<A, B: Send>(&self, a: impl FnOnce() -> A, b: impl FnOnce() -> B + Send) -> (A, B) {
        let task = Task {
            f: UnsafeCell::new(Some(b)),
            result: UnsafeCell::new(None),
            done: AtomicBool::new(false),
        };
        let entry = task.entry();
        self.shared.push(entry);
        // The task must be done with before its place on the stack goes, also if this panics.
        let a = catch_unwind(AssertUnwindSafe(a));
        if self.shared.take_back(entry) {
            // SAFETY: nobody else has it any more.
            unsafe { (entry.execute)(entry.task) };
        } else {
            self.shared.wait(&task.done);
        }
        let b = task.result.into_inner().expect("a task that is done has a result");
        match (a, b) {
            (Ok(a), Ok(b)) => (a, b),
            (Err(panic), _) | (_, Err(panic)) => resume_unwind(panic),
        }
    }

    /// Calls `f` with every index below `tasks`, in any order and perhaps at the same time.
    pub fn each(&self, tasks: usize, f: &(impl Fn(usize) + Sync)) {
        self.each_in(0, tasks, f);
    }

    fn each_in(&self, from: usize, to: usize, f: &(impl Fn(usize) + Sync)) {
        if to - from <= 1 || self.threads == 1 {
            return (from..to).for_each(f);
        }
        let middle = from + (to - from) / 2;
        self.join(|| self.each_in(from, middle, f), || self.each_in(middle, to, f));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.wake();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, and has no others.
            let _ = worker.join();
        }
    }
}

thread_local! {
    /// Whether this thread is within a run, as all workers are.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// What keeps the threads of a pool awake.
struct Run<'p>(&'p Shared);

impl Run<'_> {
    fn start(shared: &Shared) -> Run<'_> {
        shared.runs.0.fetch_add(1, Ordering::SeqCst);
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            shared.wake();
        }
        RUNNING.set(true);
        Run(shared)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        RUNNING.set(false);
        self.0.runs.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Something in cache lines of its own, so that looking at it does not slow down who writes to its neighbours.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// What the threads of a pool share.
#[derive(Default)]
struct Shared {
    queue: Apart<Mutex<VecDeque<Entry>>>,
    /// How many tasks are in the queue.
    queued: Apart<AtomicUsize>,
    /// How many runs there are.
    runs: Apart<AtomicUsize>,
    /// How many threads sleep, or are about to.
    asleep: AtomicUsize,
    ended: AtomicBool,
    sleep: Mutex<()>,
    woken: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        // Nothing panics while it is locked.
        self.queue.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, entry: Entry) {
        let mut queue = self.queue();
        queue.push_back(entry);
        self.queued.0.store(queue.len(), Ordering::Release);
    }

    /// Takes a task out of the queue again, if nobody has it.
    fn take_back(&self, entry: Entry) -> bool {
        let mut queue = self.queue();
        let at = queue.iter().rposition(|e| e.task == entry.task);
        let taken = at.and_then(|at| queue.remove(at)).is_some();
        self.queued.0.store(queue.len(), Ordering::Release);
        taken
    }

    /// Does the oldest task, which is the largest; whether there was one.
    fn help(&self) -> bool {
        if self.queued.0.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut queue = self.queue();
        let entry = queue.pop_front();
        self.queued.0.store(queue.len(), Ordering::Release);
        drop(queue);
        if let Some(Entry { task, execute }) = entry {
            // SAFETY: who has put it there waits until it is done, and nobody else has it.
            unsafe { execute(task) };
        }
        entry.is_some()
    }

    /// Helps until a flag is raised.
    fn wait(&self, done: &AtomicBool) {
        let mut idle = Idle::default();
        while !done.load(Ordering::Acquire) {
            if self.help() {
                idle = Idle::default();
            } else {
                idle.pause();
            }
        }
    }

    /// What a worker does until the pool ends.
    fn work(&self) {
        RUNNING.set(true);
        let mut idle = Idle::default();
        let mut since = None;
        while !self.ended.load(Ordering::SeqCst) {
            if self.help() {
                (idle, since) = (Idle::default(), None);
                continue;
            }
            if !idle.pause() {
                continue;
            }
            if self.runs.0.load(Ordering::SeqCst) > 0 {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                self.sleep();
                since = None;
            }
        }
    }

    /// Sleeps until there is a run.
    fn sleep(&self) {
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        // Who begins a run either sees this, or is seen here.
        self.asleep.fetch_add(1, Ordering::SeqCst);
        while self.runs.0.load(Ordering::SeqCst) == 0 && !self.ended.load(Ordering::SeqCst) {
            guard = self.woken.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake(&self) {
        let _guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.woken.notify_all();
    }
}

/// How a thread without work spends its time.
#[derive(Default)]
struct Idle(u32);

impl Idle {
    /// Waits for a moment; whether it was a longer one.
    fn pause(&mut self) -> bool {
        spin_loop();
        self.0 += 1;
        let longer = self.0.is_multiple_of(LOOKS);
        if longer {
            thread::yield_now();
        }
        longer
    }
}

/// A task in the queue.
#[derive(Clone, Copy)]
struct Entry {
    task: *const (),
    execute: unsafe fn(*const ()),
}

// SAFETY: it stands for a closure that may be sent, and for its result.
unsafe impl Send for Entry {}

/// Something that any thread may do, on the stack of who waits for it.
struct Task<F, R> {
    f: UnsafeCell<Option<F>>,
    result: UnsafeCell<Option<Result<R, Box<dyn Any + Send>>>>,
    done: AtomicBool,
}

impl<F: FnOnce() -> R + Send, R: Send> Task<F, R> {
    fn entry(&self) -> Entry {
        Entry { task: std::ptr::from_ref(self).cast(), execute: Self::execute }
    }

    /// # Safety
    /// `task` must be a living task of this type, and be executed by nobody else.
    unsafe fn execute(task: *const ()) {
        // SAFETY: the caller promises that it is one.
        let task = unsafe { &*task.cast::<Self>() };
        // SAFETY: the caller promises that nobody else looks into it, and its owner does only when it is done.
        let (f, result) = unsafe { (&mut *task.f.get(), &mut *task.result.get()) };
        if let Some(f) = f.take() {
            *result = Some(catch_unwind(AssertUnwindSafe(f)));
        }
        // From here on it may be gone.
        task.done.store(true, Ordering::Release);
    }
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

    /// Sums by halving.
    fn sum(pool: &Pool, from: u64, to: u64) -> u64 {
        if to - from == 1 {
            return from;
        }
        let middle = from + (to - from) / 2;
        let (low, high) = pool.join(|| sum(pool, from, middle), || sum(pool, middle, to));
        low + high
    }

    #[test]
    fn all_that_is_divided_is_done_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for round in 0..200 {
                assert_eq!(pool.run(|| sum(&pool, 0, 1000)), 499_500);
                // Also outside of a run.
                assert_eq!(sum(&pool, 0, 30), 435);
                if round % 20 == 0 {
                    std::thread::sleep(3 * super::PATIENCE);
                }
            }
        }
    }

    #[test]
    fn the_other_half_is_done_before_a_panic_goes_on() {
        let pool = Pool::new(4).unwrap();
        for first in [true, false] {
            let done = AtomicUsize::new(0);
            let slow = || {
                std::thread::sleep(2 * super::PATIENCE);
                done.fetch_add(1, Ordering::Relaxed);
            };
            let half = |panics: bool| if panics { panic!("as it should") } else { slow() };
            let both = || pool.join(|| half(first), || half(!first));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(both)).is_err());
            assert_eq!(done.load(Ordering::Relaxed), 1);
        }
        assert_eq!(sum(&pool, 0, 100), 4950);
    }
}
