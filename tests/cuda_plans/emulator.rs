//! A machine that runs the CUDA kernels on the CPU: their sources are compiled by the C++ compiler with
//! the shim of tests/cuda, and launched one after the other.

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use pam_runtime::cuda::CudaError;
use pam_runtime::cuda::machine::{Arg, Buffer, Free, Machine, Recording};
use pam_runtime::cuda::source::{HEADERS, Source, sources};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

type Call = unsafe extern "C" fn(*const u64, *const u32, u32, u32);

/// What a machine can be told to do, once or again.
#[derive(Clone)]
enum Work {
    Launch { call: Call, grid: [u32; 3], threads: u32, words: Vec<u64> },
    Fill { at: u64, value: u8, bytes: usize },
    Copy { from: u64, to: u64, bytes: usize },
}

/// Kernels compiled so far; plans share them.
pub struct Kernels {
    folder: tempfile::TempDir,
    calls: RefCell<BTreeMap<String, Call>>,
    libraries: RefCell<Vec<Library>>,
    /// What plans have generated.
    generated: RefCell<Vec<Source>>,
    /// Launches alternate between both orders of threads, since no order may show.
    turn: Cell<bool>,
}

impl Kernels {
    /// The kernels that every plan may need.
    pub fn new() -> Rc<Kernels> {
        let kernels = Kernels {
            folder: tempfile::tempdir().expect("a temporary folder"),
            calls: RefCell::default(),
            libraries: RefCell::default(),
            generated: RefCell::default(),
            turn: Cell::new(false),
        };
        for (name, text) in HEADERS {
            std::fs::write(kernels.folder.path().join(name), text).unwrap();
        }
        let mut command = compiler();
        command.arg("-O2").arg("-c").arg(tests().join("shim.cpp"));
        run(command.arg("-o").arg(kernels.folder.path().join("shim.o")));
        kernels.compile(&sources(), "-O2");
        kernels.generated.borrow_mut().clear();
        Rc::new(kernels)
    }

    /// Writes what plans have generated so far to `generated` in the target's folder for tests, where
    /// tests/cuda/run.sh finds it to compile, disassemble and audit.
    pub fn keep_generated(&self) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated");
        std::fs::create_dir_all(&folder).unwrap();
        for source in self.generated.borrow().iter() {
            std::fs::write(folder.join(&*source.name), source.text.as_bytes()).unwrap();
        }
    }

    fn compile(&self, sources: &[Source], optimize: &str) {
        let known = |s: &&Source| s.kernels.iter().all(|k| self.calls.borrow().contains_key(&**k));
        let missing: Vec<&Source> = sources.iter().filter(|s| !known(s)).collect();
        // Two compilers at a time.
        std::thread::scope(|scope| {
            for pair in missing.chunks(2) {
                let folder = self.folder.path();
                let work: Vec<_> =
                    pair.iter().map(|s| scope.spawn(move || object(folder, s, optimize))).collect();
                work.into_iter().for_each(|w| w.join().unwrap());
            }
        });
        for source in missing {
            let library = self.library(&source.name);
            for kernel in &source.kernels {
                // SAFETY: PAM_CALL defines a function of this type for every kernel.
                let call = unsafe { library.get::<Call>(format!("call_{kernel}").as_bytes()) };
                self.calls.borrow_mut().insert(kernel.to_string(), *call.unwrap());
            }
            self.libraries.borrow_mut().push(library);
            self.generated.borrow_mut().push(source.clone());
        }
    }

    /// Links the object of that name and the shim as a shared library and loads it. Each library binds
    /// to its own shim and its own kernels: plans share names of kernels, and a process may keep a
    /// library longer than we do.
    fn library(&self, name: &str) -> Library {
        let file = |extension: &str| self.folder.path().join(format!("{name}.{extension}"));
        let mut command = compiler();
        command.args(["-shared", "-Wl,-Bsymbolic", "-o"]).arg(file("so")).arg(file("o"));
        run(command.arg(self.folder.path().join("shim.o")));
        // SAFETY: the library consists of the kernels and the shim, which run nothing when loaded.
        unsafe { Library::open(Some(file("so")), RTLD_NOW | RTLD_LOCAL) }.unwrap()
    }
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda")
}

fn compiler() -> Command {
    let mut command = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "g++".into()));
    command.args(["-std=c++17", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing"]);
    command.args(["-fno-extern-tls-init", "-fno-gnu-unique", "-w"]);
    command
}

fn object(folder: &Path, source: &Source, optimize: &str) {
    let mut text = source.text.to_string();
    text.push_str("\n#include \"call.h\"\n");
    for kernel in &source.kernels {
        // Of what plans generate, the threads meet only where they share a row.
        let meets = optimize == "-O2" && !source.name.starts_with("scatter");
        let fibers = meets || source.text.contains("\"rows.cuh\"");
        text.push_str(&format!("PAM_CALL({kernel}, {fibers})\n"));
    }
    let file = folder.join(&*source.name);
    std::fs::write(&file, text).unwrap();
    let mut command = compiler();
    command.arg(optimize).arg("-include").arg(tests().join("shim.h"));
    command.arg("-I").arg(folder).arg("-I").arg(tests());
    command.args(["-x", "c++", "-c"]).arg(&file);
    command.arg("-o").arg(folder.join(format!("{}.o", source.name)));
    run(&mut command);
}

fn run(command: &mut Command) {
    let output = command.output().expect("a C++ compiler; name it in CXX");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}

/// Host memory handed out as device memory.
#[derive(Default)]
struct Heap(Mutex<BTreeMap<u64, Vec<u128>>>);

impl Free for Heap {
    fn free(&self, address: u64) {
        self.0.lock().unwrap().remove(&address);
    }
}

/// The emulated device.
pub struct Emulator {
    kernels: Rc<Kernels>,
    heap: Arc<Heap>,
    recording: RefCell<Option<Vec<Work>>>,
    /// What was replayed runs as late as the waits allow, beside copies that are staged.
    queue: Rc<RefCell<Vec<Work>>>,
}

impl Emulator {
    /// A device that has loaded these kernels.
    pub fn new(kernels: &Rc<Kernels>) -> Emulator {
        Emulator {
            kernels: kernels.clone(),
            heap: Arc::default(),
            recording: RefCell::default(),
            queue: Rc::default(),
        }
    }

    fn order(&self, work: Work) {
        match &mut *self.recording.borrow_mut() {
            Some(list) => list.push(work),
            None => self.queue.borrow_mut().push(work),
        }
    }

    fn wait(&self) {
        self.queue.borrow_mut().drain(..).for_each(|work| execute(&work, &self.kernels));
    }
}

fn execute(work: &Work, kernels: &Kernels) {
    // SAFETY: the backend's addresses lie in memory that this machine has handed out; a fault here is
    // what the test is to find.
    unsafe {
        match work {
            Work::Launch { call, grid, threads, words } => {
                let down = kernels.turn.replace(!kernels.turn.get());
                call(words.as_ptr(), grid.as_ptr(), *threads, down.into());
            }
            Work::Fill { at, value, bytes } => {
                std::ptr::write_bytes(*at as *mut u8, *value, *bytes)
            }
            Work::Copy { from, to, bytes } => {
                std::ptr::copy_nonoverlapping(*from as *const u8, *to as *mut u8, *bytes);
            }
        }
    }
}

struct Recorded {
    list: Vec<Work>,
    queue: Rc<RefCell<Vec<Work>>>,
}

impl Recording for Recorded {
    fn replay(&self) -> Result<(), CudaError> {
        self.queue.borrow_mut().extend(self.list.iter().cloned());
        Ok(())
    }
}

impl Machine for Emulator {
    fn arch(&self) -> &str {
        "the CPU"
    }

    /// Few, so that both kinds of contractions occur: those split along k and the others.
    fn multiprocessors(&self) -> u32 {
        2
    }

    fn load(&mut self, sources: &[Source]) -> Result<(), CudaError> {
        self.kernels.compile(sources, "-O1");
        Ok(())
    }

    fn alloc(&self, bytes: usize, _: &str) -> Result<Buffer, CudaError> {
        // What nobody has written is a NaN that no result has.
        let block = vec![u128::MAX; bytes.div_ceil(16) + 1];
        let address = block.as_ptr() as u64;
        self.heap.0.lock().unwrap().insert(address, block);
        Ok(Buffer::new(address, bytes, self.heap.clone()))
    }

    unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        self.wait();
        // SAFETY: the caller vouches for the range.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn stage(&mut self, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.wait();
        // SAFETY: as above.
        unsafe {
            std::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), bytes.len());
        }
        Ok(())
    }

    unsafe fn fill(&self, at: u64, value: u8, bytes: usize) -> Result<(), CudaError> {
        self.order(Work::Fill { at, value, bytes });
        Ok(())
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError> {
        self.order(Work::Copy { from, to, bytes });
        Ok(())
    }

    unsafe fn launch(
        &self,
        kernel: &str,
        grid: (u32, u32, u32),
        threads: u32,
        args: &[Arg],
    ) -> Result<(), CudaError> {
        let missing = || CudaError::Driver(format!("no kernel named {kernel}"));
        let call = self.kernels.calls.borrow().get(kernel).copied().ok_or_else(missing)?;
        let word = |arg: &Arg| match *arg {
            Arg::U32(x) => x.into(),
            Arg::U64(x) => x,
        };
        let words = args.iter().map(word).collect();
        self.order(Work::Launch { call, grid: [grid.0, grid.1, grid.2], threads, words });
        Ok(())
    }

    fn record(
        &self,
        work: &mut dyn FnMut() -> Result<(), CudaError>,
    ) -> Result<Box<dyn Recording>, CudaError> {
        *self.recording.borrow_mut() = Some(Vec::new());
        work()?;
        let list = self.recording.borrow_mut().take().unwrap_or_default();
        assert!(!list.is_empty(), "a driver refuses to record nothing");
        Ok(Box::new(Recorded { list, queue: self.queue.clone() }))
    }

    fn synchronize(&self) -> Result<(), CudaError> {
        self.wait();
        Ok(())
    }
}
