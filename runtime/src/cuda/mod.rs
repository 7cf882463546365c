//! The CUDA backend: kernels compiled for the device found, and their launches.
//!
//! The driver and NVRTC are loaded when first used, so that one binary serves machines with and
//! without a GPU. The kernel sources are part of the binary ([`source`]); [`nvrtc`] compiles them
//! for the device and [`cache`] keeps the result under the user's cache folder. [`device`] owns the
//! context, one stream and the loaded kernels; [`contract`] plans and launches contractions.
//!
//! Every kernel gives the bits that `docs/numerics.md` specifies, whatever the device.

pub mod cache;
pub mod contract;
pub mod device;
pub mod nvrtc;
pub mod source;

pub use device::Device;

/// Why the CUDA backend could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// No NVIDIA driver library can be loaded.
    #[error("no NVIDIA driver was found (libcuda.so); use --device cpu, or install the driver")]
    NoDriver,
    /// The driver does not list the device.
    #[error("there is no CUDA device {wanted}: the driver lists {count}")]
    NoDevice {
        /// Ordinal that was asked for.
        wanted: usize,
        /// Number of devices that the driver lists.
        count: i32,
    },
    /// libnvrtc is in none of the usual places.
    #[error(
        "libnvrtc was not found in {searched}; pass --nvrtc PATH, or \
         `pip install nvidia-cuda-nvrtc`"
    )]
    NoNvrtc {
        /// Where it was looked for.
        searched: String,
    },
    /// NVRTC refused a kernel source.
    #[error("NVRTC could not compile {name} for {arch}: {log}")]
    Compile {
        /// File name of the kernel source.
        name: String,
        /// Architecture, such as `sm_90a`.
        arch: String,
        /// The first lines that NVRTC printed.
        log: String,
    },
    /// Device memory ran out.
    #[error("out of device memory: {what} needs {asked} bytes, {free} of {total} bytes are free")]
    OutOfMemory {
        /// The buffer that did not fit.
        what: String,
        /// Its size in bytes.
        asked: usize,
        /// Free device memory in bytes.
        free: usize,
        /// Device memory in bytes.
        total: usize,
    },
    /// A shape that the kernels cannot address.
    #[error("{what} is too large for the CUDA backend")]
    TooLarge {
        /// The quantity and its value.
        what: String,
    },
    /// Any other error of the driver.
    #[error("CUDA driver: {0}")]
    Driver(String),
}

impl From<cudarc::driver::DriverError> for CudaError {
    fn from(error: cudarc::driver::DriverError) -> Self {
        CudaError::Driver(format!("{error:?}"))
    }
}
