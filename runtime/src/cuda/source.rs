//! The kernel sources, carried inside the binary.

use std::borrow::Cow;

macro_rules! kernels {
    ($name:literal) => {
        include_str!(concat!("../../../kernels/cuda/", $name))
    };
}

/// Headers that the sources include, as (file name, text).
pub const HEADERS: &[(&str, &str)] = &[
    ("pa.cuh", kernels!("pa.cuh")),
    ("tile.cuh", kernels!("tile.cuh")),
    ("product.cuh", kernels!("product.cuh")),
    ("number.cuh", kernels!("number.cuh")),
    ("elementwise.cuh", kernels!("elementwise.cuh")),
    ("native.cuh", kernels!("native.cuh")),
    ("movement.cuh", kernels!("movement.cuh")),
    ("lane.cuh", kernels!("lane.cuh")),
    ("lines.cuh", kernels!("lines.cuh")),
    ("rows.cuh", kernels!("rows.cuh")),
    ("window.cuh", kernels!("window.cuh")),
];

/// One translation unit and the kernels that it defines.
#[derive(Debug, Clone)]
pub struct Source {
    /// File name, for messages.
    pub name: Cow<'static, str>,
    /// CUDA C++ text.
    pub text: Cow<'static, str>,
    /// Its `extern "C"` kernels.
    pub kernels: Vec<Cow<'static, str>>,
}

impl Source {
    /// A source whose parts live as long as the program.
    pub fn fixed(name: &'static str, text: &'static str, kernels: &[&'static str]) -> Source {
        Source {
            name: name.into(),
            text: text.into(),
            kernels: kernels.iter().map(|&k| k.into()).collect(),
        }
    }
}

/// The translation units that every plan may need; what is particular to a plan is generated.
pub fn sources() -> Vec<Source> {
    vec![
        Source::fixed(
            "pack.cu",
            kernels!("pack.cu"),
            &["pam_pack_left", "pam_pack_right", "pam_pack_gradient"],
        ),
        Source::fixed("contract.cu", kernels!("contract.cu"), &["pam_contract", "pam_chunk_sum"]),
        Source::fixed("grad.cu", kernels!("grad.cu"), &["pam_contract_grad"]),
        Source::fixed("conv.cu", kernels!("conv.cu"), &["pam_facts", "pam_narrow", "pam_conv"]),
        Source::fixed(
            "reduce.cu",
            kernels!("reduce.cu"),
            &["pam_reduce_rows", "pam_reduce_columns", "pam_reduce_chunks"],
        ),
        Source::fixed(
            "scatter.cu",
            kernels!("scatter.cu"),
            &[
                "pam_targets_elements",
                "pam_targets_tuples",
                "pam_targets_unpool",
                "pam_link",
                "pam_sort_links",
            ],
        ),
    ]
}

/// Compiler options: no contraction of additions into fused operations, subnormals kept.
pub const OPTIONS: &[&str] =
    &["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"];
