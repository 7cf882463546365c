//! One CUDA device: its context, one stream, the compiled kernels and plain device buffers.

use std::collections::BTreeMap;
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

use super::nvrtc::Nvrtc;
use super::source::SOURCES;
use super::{CudaError, cache};

/// An argument of a kernel, in the order of its parameters.
#[derive(Debug, Clone, Copy)]
pub enum Arg {
    /// A 32-bit unsigned integer.
    U32(u32),
    /// A 64-bit unsigned integer or a device address.
    U64(u64),
}

/// Device memory, freed on drop. Addresses are plain numbers, because buffers of a plan are offsets
/// into one arena.
#[derive(Debug)]
pub struct Buffer {
    address: u64,
    bytes: usize,
    context: Arc<CudaContext>,
}

impl Buffer {
    /// First device address.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the address came from malloc_sync and is freed once; freeing waits for the
            // work that uses it.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// A device with its kernels loaded.
#[derive(Debug)]
pub struct Device {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    kernels: BTreeMap<&'static str, CudaFunction>,
    arch: String,
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
        // SAFETY: all work goes through one stream and raw addresses, so that cudarc's per-buffer
        // events have nothing to order; they would also disturb graph capture.
        unsafe { context.disable_event_tracking() };
        // Capture fails on the default stream.
        let stream = context.new_stream()?;
        let (major, minor) = context.compute_capability()?;
        let suffix = if (major, minor) == (9, 0) { "a" } else { "" };
        let mut device = Device {
            context,
            stream,
            kernels: BTreeMap::new(),
            arch: format!("sm_{major}{minor}{suffix}"),
            nvrtc: None,
        };
        let mut compiler = None;
        for source in SOURCES {
            let key = cache::key(source, &device.arch);
            let folder = cache::folder();
            let cached = folder.as_deref().and_then(|folder| cache::read(folder, &key));
            let code = match cached {
                Some(code) => code,
                None => {
                    let compiler = match &compiler {
                        Some(loaded) => loaded,
                        None => compiler.insert(Nvrtc::load(nvrtc)?),
                    };
                    device.nvrtc = Some(compiler.path().to_path_buf());
                    let code = compiler.compile(source.name, source.text, &device.arch)?;
                    if let Some(folder) = &folder {
                        cache::write(folder, &key, &code);
                    }
                    code
                }
            };
            device.load(code, source.kernels)?;
        }
        Ok(device)
    }

    /// Loads further kernels from machine code.
    ///
    /// # Errors
    ///
    /// The driver's, when the code is for another architecture or lacks a kernel.
    pub fn load(&mut self, code: Vec<u8>, kernels: &[&'static str]) -> Result<(), CudaError> {
        let module = self.context.load_module(Ptx::from_binary(code))?;
        for name in kernels {
            self.kernels.insert(name, module.load_function(name)?);
        }
        Ok(())
    }

    /// Architecture that the kernels are compiled for, such as `sm_90a`.
    pub fn arch(&self) -> &str {
        &self.arch
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

    /// Number of multiprocessors.
    ///
    /// # Errors
    ///
    /// The driver's.
    pub fn multiprocessors(&self) -> Result<u32, CudaError> {
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        Ok(self.context.attribute(attribute)?.max(1) as u32)
    }

    /// Allocates `bytes` of device memory for `what`. The contents are undefined.
    ///
    /// # Errors
    ///
    /// [`CudaError::OutOfMemory`] names the buffer and what is free.
    pub fn alloc(&self, bytes: usize, what: &str) -> Result<Buffer, CudaError> {
        self.context.bind_to_thread()?;
        // SAFETY: a plain allocation in the bound context; `Buffer` frees it.
        match unsafe { result::malloc_sync(bytes.max(16)) } {
            Ok(address) => Ok(Buffer { address, bytes, context: self.context.clone() }),
            Err(error) if error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = self.context.mem_get_info()?;
                Err(CudaError::OutOfMemory { what: what.into(), asked: bytes, free, total })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Copies `values` into a new buffer and waits for the copy.
    ///
    /// # Errors
    ///
    /// Out of memory, or the driver's.
    pub fn upload<T: Copy>(&self, values: &[T], what: &str) -> Result<Buffer, CudaError> {
        let buffer = self.alloc(size_of_val(values), what)?;
        if !values.is_empty() {
            // SAFETY: the buffer is as large as the slice.
            unsafe { result::memcpy_htod_sync(buffer.address, values) }?;
        }
        Ok(buffer)
    }

    /// Waits for the stream and copies a buffer's first values back.
    ///
    /// # Errors
    ///
    /// The driver's.
    ///
    /// # Panics
    ///
    /// When the buffer is shorter than `values`.
    pub fn download<T: Copy>(&self, buffer: &Buffer, values: &mut [T]) -> Result<(), CudaError> {
        assert!(size_of_val(values) <= buffer.bytes, "the buffer is shorter than asked for");
        self.stream.synchronize()?;
        // SAFETY: the buffer holds at least that many bytes, and `T` is plain data.
        unsafe { result::memcpy_dtoh_sync(values, buffer.address) }?;
        Ok(())
    }

    /// Fills device memory with one byte value, in stream order.
    ///
    /// # Safety
    ///
    /// `[address, address + bytes)` must be allocated on this device.
    ///
    /// # Errors
    ///
    /// The driver's.
    pub unsafe fn fill(&self, address: u64, value: u8, bytes: usize) -> Result<(), CudaError> {
        self.context.bind_to_thread()?;
        // SAFETY: the caller vouches for the range.
        unsafe { result::memset_d8_async(address, value, bytes, self.stream.cu_stream()) }?;
        Ok(())
    }

    /// Launches a kernel in stream order with blocks of `threads`.
    ///
    /// # Safety
    ///
    /// The arguments must match the kernel's parameters in number and type, and the addresses among
    /// them must cover what the kernel reads and writes.
    ///
    /// # Errors
    ///
    /// The driver's; an unknown kernel is [`CudaError::Driver`].
    pub unsafe fn launch(
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

    /// Waits until everything queued so far has run.
    ///
    /// # Errors
    ///
    /// The driver's, including errors of earlier kernels.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        Ok(self.stream.synchronize()?)
    }

    /// Records a timing event in stream order.
    ///
    /// # Errors
    ///
    /// The driver's.
    pub fn event(&self) -> Result<CudaEvent, CudaError> {
        Ok(self.stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))?)
    }

    /// Captures the launches that `work` makes as one graph, to be replayed with its `launch`.
    ///
    /// # Errors
    ///
    /// The driver's, or the error of `work`.
    pub fn capture(
        &self,
        work: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<CudaGraph, CudaError> {
        self.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        let outcome = work();
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = self.stream.end_capture(flags);
        outcome?;
        graph?.ok_or_else(|| CudaError::Driver("nothing was captured".into()))
    }
}
