//! One CUDA device: its context, a stream for the work and one for copies beside it, and the kernels.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cudarc::driver::sys::{
    CUdevice_attribute, CUevent_flags, CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode,
};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaGraph, CudaStream, LaunchConfig, PushKernelArg,
    result, sys,
};
use cudarc::nvrtc::Ptx;

use super::machine::{Arg, Buffer, Free, Machine, Recording};
use super::nvrtc::Nvrtc;
use super::source::{Source, sources};
use super::{CudaError, cache};

/// Frees device memory in its context.
struct Context(Arc<CudaContext>);

impl Free for Context {
    fn free(&self, address: u64) {
        if self.0.bind_to_thread().is_ok() {
            // SAFETY: the address came from malloc_sync and is freed once; freeing waits for the
            // work that uses it.
            let _ = unsafe { result::free_sync(address) };
        }
    }
}

/// Page-locked host memory, from which copies run beside the kernels.
struct Pinned {
    at: *mut c_void,
    bytes: usize,
    context: Arc<CudaContext>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the pointer came from malloc_host and is freed once.
            let _ = unsafe { result::free_host(self.at) };
        }
    }
}

/// A device with its kernels loaded.
pub struct Device {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    copies: Arc<CudaStream>,
    /// The staging block, and the event after the last copy out of it.
    pinned: Option<Pinned>,
    copied: Option<CudaEvent>,
    owner: Arc<dyn Free>,
    kernels: BTreeMap<String, CudaFunction>,
    arch: String,
    multiprocessors: u32,
    /// Where `--nvrtc` says to look.
    wanted: Option<PathBuf>,
    nvrtc: Option<PathBuf>,
}

impl Device {
    /// Opens device `ordinal` and loads every kernel, compiling what the cache does not hold.
    /// `nvrtc` is the value of `--nvrtc`.
    ///
    /// # Errors
    ///
    /// No driver, no such device, no NVRTC, or a compile error.
    pub fn open(ordinal: usize, nvrtc: Option<&Path>) -> Result<Self, CudaError> {
        // SAFETY: this only tries to load NVIDIA's driver library.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        // A driver library without a device, as in containers, fails here.
        let count = CudaContext::device_count().map_err(|_| CudaError::NoDriver)?;
        if usize::try_from(count).is_ok_and(|count| ordinal >= count) {
            return Err(CudaError::NoDevice { wanted: ordinal, count });
        }
        let context = CudaContext::new(ordinal)?;
        // SAFETY: all work goes through raw addresses and events of our own, so that cudarc's
        // per-buffer events have nothing to order; they would also disturb graph capture.
        unsafe { context.disable_event_tracking() };
        // Capture fails on the default stream.
        let (stream, copies) = (context.new_stream()?, context.new_stream()?);
        let (major, minor) = context.compute_capability()?;
        let suffix = if (major, minor) == (9, 0) { "a" } else { "" };
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let mut device = Device {
            multiprocessors: context.attribute(attribute)?.max(1) as u32,
            owner: Arc::new(Context(context.clone())),
            context,
            stream,
            copies,
            pinned: None,
            copied: None,
            kernels: BTreeMap::new(),
            arch: format!("sm_{major}{minor}{suffix}"),
            wanted: nvrtc.map(Path::to_path_buf),
            nvrtc: None,
        };
        device.load(&sources())?;
        Ok(device)
    }

    /// Loads kernels from machine code.
    ///
    /// # Errors
    ///
    /// The driver's, when the code is for another architecture or lacks a kernel.
    pub fn load_code(&mut self, code: Vec<u8>, source: &Source) -> Result<(), CudaError> {
        let module = self.context.load_module(Ptx::from_binary(code))?;
        for name in &source.kernels {
            self.kernels.insert(name.to_string(), module.load_function(name)?);
        }
        Ok(())
    }

    /// Where NVRTC was loaded from; `None` when every kernel came from the cache.
    pub fn nvrtc(&self) -> Option<&Path> {
        self.nvrtc.as_deref()
    }

    /// The device's name.
    ///
    /// # Errors
    ///
    /// The driver's.
    pub fn name(&self) -> Result<String, CudaError> {
        Ok(self.context.name()?)
    }

    /// Records a timing event in stream order.
    ///
    /// # Errors
    ///
    /// The driver's.
    pub fn event(&self) -> Result<CudaEvent, CudaError> {
        Ok(self.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?)
    }

    /// The staging block, of at least so many bytes, once the last copy out of it is over.
    fn staging(&mut self, bytes: usize) -> Result<*mut c_void, CudaError> {
        if let Some(event) = self.copied.take() {
            event.synchronize()?;
        }
        if self.pinned.as_ref().is_none_or(|p| p.bytes < bytes) {
            self.context.bind_to_thread()?;
            // SAFETY: a plain allocation in the bound context; `Pinned` frees it.
            let at = unsafe { result::malloc_host(bytes.max(1 << 20), 0) }?;
            let context = self.context.clone();
            self.pinned = Some(Pinned { at, bytes: bytes.max(1 << 20), context });
        }
        Ok(self.pinned.as_ref().map_or(std::ptr::null_mut(), |p| p.at))
    }
}

impl Machine for Device {
    fn arch(&self) -> &str {
        &self.arch
    }

    fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    fn load(&mut self, sources: &[Source]) -> Result<(), CudaError> {
        let folder = cache::folder();
        let known = |source: &Source| {
            let folder = folder.as_deref()?;
            cache::read(folder, &cache::key(source, &self.arch))
        };
        let mut codes: Vec<Option<Vec<u8>>> = sources.iter().map(known).collect();
        if codes.iter().any(Option::is_none) {
            let compiler = Nvrtc::load(self.wanted.as_deref())?;
            self.nvrtc = Some(compiler.path().to_path_buf());
            let (arch, compiler) = (&self.arch, &compiler);
            // NVRTC may be called by several threads.
            std::thread::scope(|scope| {
                let missing: Vec<_> = codes
                    .iter_mut()
                    .zip(sources)
                    .filter(|(code, _)| code.is_none())
                    .map(|(code, source)| {
                        let work =
                            scope.spawn(|| compiler.compile(&source.name, &source.text, arch));
                        (code, work)
                    })
                    .collect();
                for (code, work) in missing {
                    let done = work.join();
                    let lost = |_| CudaError::Driver("a compiling thread was lost".to_owned());
                    *code = Some(done.map_err(lost)??);
                }
                Ok::<(), CudaError>(())
            })?;
        }
        for (code, source) in codes.into_iter().zip(sources) {
            let code = code.unwrap_or_default();
            if let Some(folder) = &folder {
                cache::keep(folder, &cache::key(source, &self.arch), &code);
            }
            self.load_code(code, source)?;
        }
        Ok(())
    }

    fn alloc(&self, bytes: usize, what: &str) -> Result<Buffer, CudaError> {
        self.context.bind_to_thread()?;
        // SAFETY: a plain allocation in the bound context; `Buffer` frees it.
        match unsafe { result::malloc_sync(bytes.max(16)) } {
            Ok(address) => Ok(Buffer::new(address, bytes, self.owner.clone())),
            Err(error) if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = self.context.mem_get_info()?;
                Err(CudaError::OutOfMemory { what: what.into(), asked: bytes, free, total })
            }
            Err(error) => Err(error.into()),
        }
    }

    unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        if !bytes.is_empty() {
            self.context.bind_to_thread()?;
            // In stream order, since the stream does not wait for the default stream's copies.
            // SAFETY: the caller vouches for the range; the bytes stay until the copy is over.
            unsafe { result::memcpy_htod_async(address, bytes, self.stream.cu_stream()) }?;
            self.stream.synchronize()?;
        }
        Ok(())
    }

    unsafe fn stage(&mut self, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let at = self.staging(bytes.len())?.cast::<u8>();
        // SAFETY: the staging block has that many bytes, and no copy out of it is under way.
        let block = unsafe { std::slice::from_raw_parts_mut(at, bytes.len()) };
        block.copy_from_slice(bytes);
        // SAFETY: the caller vouches for the range; the block stays until the event has passed.
        unsafe { result::memcpy_htod_async(address, block, self.copies.cu_stream()) }?;
        let event = self.copies.record_event(None)?;
        self.stream.wait(&event)?;
        self.copied = Some(event);
        Ok(())
    }

    unsafe fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.stream.synchronize()?;
        if !bytes.is_empty() {
            // SAFETY: the caller vouches for the range.
            unsafe { result::memcpy_dtoh_sync(bytes, address) }?;
        }
        Ok(())
    }

    unsafe fn fill(&self, address: u64, value: u8, bytes: usize) -> Result<(), CudaError> {
        if bytes > 0 {
            self.context.bind_to_thread()?;
            // SAFETY: the caller vouches for the range.
            unsafe { result::memset_d8_async(address, value, bytes, self.stream.cu_stream()) }?;
        }
        Ok(())
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError> {
        if bytes > 0 {
            self.context.bind_to_thread()?;
            // SAFETY: the caller vouches for both ranges.
            unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }?;
        }
        Ok(())
    }

    unsafe fn launch(
        &self,
        kernel: &str,
        grid: (u32, u32, u32),
        threads: u32,
        args: &[Arg],
    ) -> Result<(), CudaError> {
        let function = self
            .kernels
            .get(kernel)
            .ok_or_else(|| CudaError::Driver(format!("no kernel named {kernel}")))?;
        let mut builder = self.stream.launch_builder(function);
        for arg in args {
            match arg {
                Arg::U32(value) => builder.arg(value),
                Arg::U64(value) => builder.arg(value),
            };
        }
        let config =
            LaunchConfig { grid_dim: grid, block_dim: (threads, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the caller vouches for the arguments.
        unsafe { builder.launch(config) }?;
        Ok(())
    }

    fn record(
        &self,
        work: &mut dyn FnMut() -> Result<(), CudaError>,
    ) -> Result<Box<dyn Recording>, CudaError> {
        self.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        let outcome = work();
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = self.stream.end_capture(flags);
        outcome?;
        let graph = graph?.ok_or_else(|| CudaError::Driver("nothing was recorded".into()))?;
        Ok(Box::new(graph))
    }

    fn synchronize(&self) -> Result<(), CudaError> {
        Ok(self.stream.synchronize()?)
    }
}

impl Recording for CudaGraph {
    fn replay(&self) -> Result<(), CudaError> {
        Ok(self.launch()?)
    }
}
