//! The CUDA backend: kernels compiled for the device found, and their launches.
//!
//! The driver and NVRTC are loaded when first used, so that one binary serves machines with and
//! without a GPU. The kernel sources are part of the binary ([`source`]); [`nvrtc`] compiles them
//! for the device and [`cache`] keeps the result under the user's cache folder. [`device`] owns the
//! context, its streams and the loaded kernels, and is one [`Machine`]; the tests have another that
//! runs the same sources on the CPU.
//!
//! [`backend`] runs a whole plan: `lower` turns each step into orders ([`order`]), [`contract`]
//! plans contractions, [`emit`] writes the kernels that are particular to a plan. The orders are
//! recorded once for each half of the state and replayed. [`audit`] looks at the machine code.
//!
//! Every kernel gives the bits that `docs/numerics.md` specifies, whatever the device. Only native
//! arithmetic, where a policy leaves some, is as exact as the device's own functions are.

pub mod audit;
mod backend;
mod batch;
pub mod cache;
pub mod contract;
pub mod device;
pub mod emit;
mod expression;
mod lower;
pub mod machine;
pub mod nvrtc;
mod order;
mod program;
pub mod source;

pub(crate) use backend::Backend;
pub use device::Device;
pub use machine::Machine;

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
        "libnvrtc was not found in {}; pass --nvrtc PATH, or `pip install nvidia-cuda-nvrtc`",
        if searched.is_empty() { "any of the usual places" } else { searched.as_str() }
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
    #[error("out of device memory: {what} needs {asked} bytes, {free} of {total} bytes are free; a batch of \
         about {} percent of this one would fit",
        fits(*asked, *free))]
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
    /// Something that the kernels cannot compute.
    #[error("{0}; use --device cpu")]
    Unsupported(String),
    /// The kernels cannot be audited.
    #[error("{0}")]
    Audit(String),
    /// Any other error of the driver.
    #[error("CUDA driver: {0}")]
    Driver(String),
}

/// The share of a batch, in percent, whose buffer fits what is free.
fn fits(asked: usize, free: usize) -> usize {
    (free as f64 / asked.max(1) as f64 * 100.0).floor().min(99.0) as usize
}

impl From<cudarc::driver::DriverError> for CudaError {
    fn from(error: cudarc::driver::DriverError) -> Self {
        CudaError::Driver(format!("{error:?}"))
    }
}
