//! Finds libnvrtc at run time and compiles kernel sources to machine code with it.
//!
//! The library is looked for where `--nvrtc` says, in CUDA's usual folders, on the loader's own
//! path, and beside the pip packages of every Python on `PATH` (PyTorch brings it along).

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};

use super::CudaError;
use super::source::{HEADERS, OPTIONS};

type Program = *mut c_void;
type Code = c_int;

/// A loaded libnvrtc.
#[derive(Debug)]
pub struct Nvrtc {
    library: Library,
    // NVRTC opens its builtins by name alone, so they stay loaded from beside it.
    _builtins: Vec<Library>,
    path: PathBuf,
}

impl Nvrtc {
    /// Loads libnvrtc: from `explicit` (a file or a folder) alone where given, else from the first
    /// usual place that has one.
    ///
    /// # Errors
    ///
    /// [`CudaError::NoNvrtc`] with the places searched.
    pub fn load(explicit: Option<&Path>) -> Result<Self, CudaError> {
        let folders = match explicit {
            Some(path) if path.is_file() => {
                return Self::open(path)
                    .ok_or_else(|| CudaError::NoNvrtc { searched: path.display().to_string() });
            }
            Some(path) => vec![path.to_path_buf(), path.join("lib"), path.join("lib64")],
            None => usual_folders(),
        };
        for folder in &folders {
            for file in matching(folder, "libnvrtc.so") {
                if let Some(found) = Self::open(&file) {
                    return Ok(found);
                }
            }
        }
        if explicit.is_none() {
            for name in ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"] {
                if let Some(found) = Self::open(Path::new(name)) {
                    return Ok(found);
                }
            }
        }
        let listed: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
        Err(CudaError::NoNvrtc { searched: listed.join(", ") })
    }

    fn open(path: &Path) -> Option<Self> {
        let beside = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builtins = Vec::new();
        for file in
            beside.map(|folder| matching(folder, "libnvrtc-builtins.so")).unwrap_or_default()
        {
            // SAFETY: NVIDIA's library has no load-time code that depends on this program.
            if let Ok(library) = unsafe { Library::open(Some(&file), RTLD_NOW | RTLD_GLOBAL) } {
                builtins.push(library);
            }
        }
        // SAFETY: as above.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.ok()?;
        Some(Nvrtc { library, _builtins: builtins, path: path.to_path_buf() })
    }

    /// The file that was loaded.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Major and minor version.
    ///
    /// # Errors
    ///
    /// [`CudaError::NoNvrtc`] if the library lacks the call.
    pub fn version(&self) -> Result<(i32, i32), CudaError> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the signature is that of nvrtc.h, and both pointers are valid for a write.
        unsafe {
            let call: Symbol<unsafe extern "C" fn(*mut c_int, *mut c_int) -> Code> =
                self.symbol(b"nvrtcVersion")?;
            call(&mut major, &mut minor);
        }
        Ok((major, minor))
    }

    /// Compiles one source to the machine code of `arch` (such as `sm_90a`).
    ///
    /// # Errors
    ///
    /// [`CudaError::Compile`] with NVRTC's log.
    pub fn compile(&self, name: &str, text: &str, arch: &str) -> Result<Vec<u8>, CudaError> {
        let fail = |log: String| CudaError::Compile { name: name.into(), arch: arch.into(), log };
        let c = |text: &str| CString::new(text).map_err(|_| fail("a NUL in the source".into()));
        let (file, body) = (c(name)?, c(text)?);
        let heads = HEADERS
            .iter()
            .map(|(name, text)| Ok((c(name)?, c(text)?)))
            .collect::<Result<Vec<_>, CudaError>>()?;
        let names: Vec<*const c_char> = heads.iter().map(|(n, _)| n.as_ptr()).collect();
        let texts: Vec<*const c_char> = heads.iter().map(|(_, t)| t.as_ptr()).collect();
        let target = format!("--gpu-architecture={arch}");
        let options = OPTIONS
            .iter()
            .copied()
            .chain([target.as_str()])
            .map(c)
            .collect::<Result<Vec<_>, CudaError>>()?;
        let options: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();

        // SAFETY: the signatures are those of nvrtc.h; every pointer outlives the calls, since the
        // strings live until the end of this function; the program is destroyed exactly once.
        unsafe {
            type Create = unsafe extern "C" fn(
                *mut Program,
                *const c_char,
                *const c_char,
                c_int,
                *const *const c_char,
                *const *const c_char,
            ) -> Code;
            type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Code;
            type Size = unsafe extern "C" fn(Program, *mut usize) -> Code;
            type Get = unsafe extern "C" fn(Program, *mut c_char) -> Code;
            type Destroy = unsafe extern "C" fn(*mut Program) -> Code;
            let create: Symbol<Create> = self.symbol(b"nvrtcCreateProgram")?;
            let compile: Symbol<Compile> = self.symbol(b"nvrtcCompileProgram")?;
            let log_size: Symbol<Size> = self.symbol(b"nvrtcGetProgramLogSize")?;
            let log: Symbol<Get> = self.symbol(b"nvrtcGetProgramLog")?;
            let code_size: Symbol<Size> = self.symbol(b"nvrtcGetCUBINSize")?;
            let code: Symbol<Get> = self.symbol(b"nvrtcGetCUBIN")?;
            let destroy: Symbol<Destroy> = self.symbol(b"nvrtcDestroyProgram")?;

            let mut program: Program = ptr::null_mut();
            let status = create(
                &mut program,
                body.as_ptr(),
                file.as_ptr(),
                heads.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            );
            if status != 0 {
                return Err(fail(format!("NVRTC error {status}")));
            }
            let read = |size: &Symbol<Size>, get: &Symbol<Get>| {
                let mut length = 0;
                let mut bytes = Vec::new();
                if size(program, &mut length) == 0 {
                    bytes = vec![0u8; length];
                    if length > 0 && get(program, bytes.as_mut_ptr().cast()) != 0 {
                        bytes.clear();
                    }
                }
                bytes
            };
            let status = compile(program, options.len() as c_int, options.as_ptr());
            let result = if status == 0 {
                Ok(read(&code_size, &code))
            } else {
                let bytes = read(&log_size, &log);
                let text = CStr::from_bytes_until_nul(&bytes)
                    .map(|t| t.to_string_lossy().into_owned())
                    .unwrap_or_default();
                let first: Vec<&str> =
                    text.lines().filter(|l| !l.trim().is_empty()).take(3).collect();
                Err(fail(format!("error {status}: {}", first.join("; "))))
            };
            destroy(&mut program);
            match result {
                Ok(bytes) if bytes.is_empty() => Err(fail("no machine code was produced".into())),
                other => other,
            }
        }
    }

    /// # Safety
    ///
    /// `T` must be the function's type in nvrtc.h.
    unsafe fn symbol<T>(&self, name: &[u8]) -> Result<Symbol<T>, CudaError> {
        // SAFETY: the caller vouches for the type.
        unsafe { self.library.get(name) }
            .map_err(|_| CudaError::NoNvrtc { searched: self.path.display().to_string() })
    }
}

/// Files in a folder whose name is `stem` or `stem.VERSION`, newest version first.
fn matching(folder: &Path, stem: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix(stem))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
        .collect();
    found.sort();
    found.reverse();
    found
}

/// Subfolders of `folder` whose name starts with `prefix`, in descending order.
fn subfolders(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found.reverse();
    found
}

/// The folders of libraries in which CUDA's usually lie.
pub(super) fn usual_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut roots: Vec<PathBuf> =
        ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(std::env::var_os).map(PathBuf::from).collect();
    roots.extend(subfolders(Path::new("/usr/local"), "cuda"));
    roots.push(PathBuf::from("/opt/cuda"));
    for root in roots {
        for tail in ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"] {
            folders.push(root.join(tail));
        }
    }
    // <python prefix>/lib/python3.x/site-packages/nvidia/<package>/lib
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut prefixes: Vec<PathBuf> =
        std::env::var_os("VIRTUAL_ENV").map(PathBuf::from).into_iter().collect();
    prefixes.extend(
        std::env::split_paths(&path)
            .filter(|bin| bin.join("python3").exists())
            .filter_map(|bin| bin.parent().map(Path::to_path_buf)),
    );
    for prefix in prefixes {
        for python in subfolders(&prefix.join("lib"), "python3") {
            for packages in ["site-packages", "dist-packages"] {
                for package in subfolders(&python.join(packages).join("nvidia"), "c") {
                    folders.push(package.join("lib"));
                }
            }
        }
    }
    folders.retain(|folder| folder.is_dir());
    folders
}
