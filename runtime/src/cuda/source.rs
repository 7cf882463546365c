//! The kernel sources, carried inside the binary.

/// Headers that the sources include, as (file name, text).
pub const HEADERS: &[(&str, &str)] = &[
    ("pa.cuh", include_str!("../../../kernels/cuda/pa.cuh")),
    ("tile.cuh", include_str!("../../../kernels/cuda/tile.cuh")),
    ("product.cuh", include_str!("../../../kernels/cuda/product.cuh")),
];

/// One translation unit and the kernels that it defines.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// File name, for messages.
    pub name: &'static str,
    /// CUDA C++ text.
    pub text: &'static str,
    /// Its `extern "C"` kernels.
    pub kernels: &'static [&'static str],
}

/// Every translation unit of the backend.
pub const SOURCES: &[Source] = &[
    Source {
        name: "pack.cu",
        text: include_str!("../../../kernels/cuda/pack.cu"),
        kernels: &["pam_pack_left", "pam_pack_right", "pam_pack_gradient"],
    },
    Source {
        name: "contract.cu",
        text: include_str!("../../../kernels/cuda/contract.cu"),
        kernels: &["pam_contract", "pam_chunk_sum"],
    },
    Source {
        name: "grad.cu",
        text: include_str!("../../../kernels/cuda/grad.cu"),
        kernels: &["pam_contract_grad"],
    },
    Source {
        name: "conv.cu",
        text: include_str!("../../../kernels/cuda/conv.cu"),
        kernels: &["pam_facts", "pam_conv"],
    },
    Source {
        name: "reduce.cu",
        text: include_str!("../../../kernels/cuda/reduce.cu"),
        kernels: &["pam_reduce_rows", "pam_reduce_columns", "pam_reduce_chunks"],
    },
];

/// Compiler options: no contraction of additions into fused operations, subnormals kept.
pub const OPTIONS: &[&str] =
    &["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"];
