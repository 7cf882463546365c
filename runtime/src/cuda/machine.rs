//! What the backend asks of a device: memory, kernels, launches, recording.
//!
//! [`super::Device`] answers through NVIDIA's driver. The tests answer by running the same kernel
//! sources on the CPU, so that whole plans are checked where there is no GPU.

use super::CudaError;
use super::source::Source;
use std::fmt;
use std::sync::Arc;

/// An argument of a kernel, in the order of its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
    /// A 32-bit integer.
    U32(u32),
    /// A 64-bit integer or a device address.
    U64(u64),
}

/// Frees what a machine has allocated.
pub trait Free: Send + Sync {
    /// Frees the memory at an address that the machine gave.
    fn free(&self, address: u64);
}

/// Device memory, freed on drop. Addresses are plain numbers, because buffers of a plan are offsets
/// into one arena.
pub struct Buffer {
    address: u64,
    bytes: usize,
    owner: Arc<dyn Free>,
}

impl Buffer {
    /// Memory that `owner` frees.
    pub fn new(address: u64, bytes: usize, owner: Arc<dyn Free>) -> Buffer {
        Buffer { address, bytes, owner }
    }

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
        self.owner.free(self.address);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({:#x}, {} bytes)", self.address, self.bytes)
    }
}

/// Launches recorded as one graph.
pub trait Recording {
    /// Runs all of them again, in stream order.
    ///
    /// # Errors
    /// The driver's.
    fn replay(&self) -> Result<(), CudaError>;
}

/// A device with one stream in whose order everything happens.
pub trait Machine {
    /// Architecture that kernels are compiled for, such as `sm_90a`.
    fn arch(&self) -> &str;

    /// Number of multiprocessors.
    fn multiprocessors(&self) -> u32;

    /// Compiles sources, unless the cache has them, and loads their kernels.
    ///
    /// # Errors
    /// No NVRTC, a compile error, or the driver's.
    fn load(&mut self, sources: &[Source]) -> Result<(), CudaError>;

    /// Allocates `bytes` of device memory for `what`. The contents are undefined.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`] names the buffer and what is free.
    fn alloc(&self, bytes: usize, what: &str) -> Result<Buffer, CudaError>;

    /// Copies bytes to the device; the copy is over when this returns.
    ///
    /// # Safety
    /// `[address, address + bytes.len())` must be allocated on this device.
    ///
    /// # Errors
    /// The driver's.
    unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<(), CudaError>;

    /// Copies bytes to the device through pinned memory, beside whatever is running; launches and
    /// replays that follow see them.
    ///
    /// # Safety
    /// As [`Machine::write`]; nothing that is running may read or write the range.
    ///
    /// # Errors
    /// The driver's.
    unsafe fn stage(&mut self, address: u64, bytes: &[u8]) -> Result<(), CudaError>;

    /// Waits for everything queued and copies bytes back.
    ///
    /// # Safety
    /// As [`Machine::write`].
    ///
    /// # Errors
    /// The driver's.
    unsafe fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), CudaError>;

    /// Fills device memory with one byte value, in stream order.
    ///
    /// # Safety
    /// As [`Machine::write`].
    ///
    /// # Errors
    /// The driver's.
    unsafe fn fill(&self, address: u64, value: u8, bytes: usize) -> Result<(), CudaError>;

    /// Copies device memory, in stream order.
    ///
    /// # Safety
    /// Both ranges must be allocated on this device and must not overlap.
    ///
    /// # Errors
    /// The driver's.
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), CudaError>;

    /// Launches a kernel in stream order with blocks of `threads`.
    ///
    /// # Safety
    /// The arguments must match the kernel's parameters in number and type, and the addresses among
    /// them must cover what the kernel reads and writes.
    ///
    /// # Errors
    /// The driver's; an unknown kernel is [`CudaError::Driver`].
    unsafe fn launch(
        &self,
        kernel: &str,
        grid: (u32, u32, u32),
        threads: u32,
        args: &[Arg],
    ) -> Result<(), CudaError>;

    /// Records what `work` launches, copies and fills as one graph, without running it.
    ///
    /// # Errors
    /// The driver's, or the error of `work`.
    fn record(
        &self,
        work: &mut dyn FnMut() -> Result<(), CudaError>,
    ) -> Result<Box<dyn Recording>, CudaError>;

    /// Waits until everything queued so far has run.
    ///
    /// # Errors
    /// The driver's, including errors of earlier kernels.
    fn synchronize(&self) -> Result<(), CudaError>;
}

/// A new buffer that holds `values`.
///
/// # Errors
/// Out of memory, or the driver's.
pub fn upload<T: bytemuck::Pod>(
    machine: &dyn Machine,
    values: &[T],
    what: &str,
) -> Result<Buffer, CudaError> {
    let buffer = machine.alloc(size_of_val(values), what)?;
    // SAFETY: the buffer is as large as the slice.
    unsafe { machine.write(buffer.address(), bytemuck::cast_slice(values)) }?;
    Ok(buffer)
}

/// The first values of a buffer, once everything queued has run.
///
/// # Errors
/// The driver's.
///
/// # Panics
/// Where the buffer is shorter than `values`.
pub fn download<T: bytemuck::Pod>(
    machine: &dyn Machine,
    buffer: &Buffer,
    values: &mut [T],
) -> Result<(), CudaError> {
    assert!(size_of_val(values) <= buffer.bytes, "the buffer is shorter than asked for");
    // SAFETY: the buffer holds at least that many bytes.
    unsafe { machine.read(buffer.address(), bytemuck::cast_slice_mut(values)) }
}
