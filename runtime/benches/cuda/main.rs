//! Checks the CUDA contractions bit for bit and measures them; refuses to print a figure without a
//! GPU.
//!
//! ```text
//! cargo bench -p pam-runtime --bench cuda -- [--nvrtc PATH] [--json FILE] [--commit ID]
//!                                            [--check-only | --quick]
//!                                            [--compile ARCH]
//! ```
//!
//! `--quick` checks three small shapes, for slow tools such as compute-sanitizer. `--compile sm_90a`
//! needs no GPU: it fills the kernel cache with NVRTC and stops. Times are medians over device
//! events; every figure stands beside its issue bound (multiply-accumulates per clock and
//! multiprocessor that the instruction mix allows, times multiprocessors and the clock measured
//! right after the run) and the literature's formulation on the same device.

mod measure;
mod reduce;
mod spec;

use std::path::PathBuf;
use std::process::ExitCode;

use pam_runtime::cuda::contract::{Contraction, Kind, Shape, Strides};
use pam_runtime::cuda::machine::{download, upload};
use pam_runtime::cuda::nvrtc::Nvrtc;
use pam_runtime::cuda::source::{Source, sources};
use pam_runtime::cuda::{CudaError, Device, Machine, cache};
use spec::{DATA, Data, Random};

/// Kernels of this benchmark alone; the first contains multiplications on purpose.
fn extra() -> [Source; 2] {
    [
        Source::fixed(
            "paper.cu",
            include_str!("../../../kernels/cuda/bench/paper.cu"),
            &["paper_matmul"],
        ),
        Source::fixed(
            "clock.cu",
            include_str!("../../../kernels/cuda/bench/clock.cu"),
            &["bench_clock"],
        ),
    ]
}

/// The contraction as plans use it.
fn contraction() -> Source {
    sources().into_iter().find(|s| s.name == "contract.cu").expect("it is in the list")
}

/// The contraction with other shares of its additions on the integer pipe, of eight columns.
const ALU_COLUMNS: [u32; 5] = [0, 2, 4, 6, 8];

fn variant(columns: u32) -> Source {
    let original = contraction();
    let text = format!("#define ALU_COLUMNS {columns}\n{}", original.text);
    Source { text: text.into(), ..original }
}

#[derive(Debug, Default)]
struct Options {
    nvrtc: Option<PathBuf>,
    json: Option<PathBuf>,
    commit: String,
    check_only: bool,
    quick: bool,
    compile: Option<String>,
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--nvrtc" => options.nvrtc = Some(value()?.into()),
            "--json" => options.json = Some(value()?.into()),
            "--commit" => options.commit = value()?,
            "--compile" => options.compile = Some(value()?),
            "--check-only" => options.check_only = true,
            "--quick" => (options.quick, options.check_only) = (true, true),
            "--bench" => {}
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    let outcome = match &options.compile {
        Some(arch) => compile(&options, arch),
        None => run(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn compile(options: &Options, arch: &str) -> Result<bool, CudaError> {
    let compiler = Nvrtc::load(options.nvrtc.as_deref())?;
    let variants = ALU_COLUMNS.into_iter().map(variant);
    for source in sources().into_iter().chain(extra()).chain(variants) {
        let code = compiler.compile(&source.name, &source.text, arch)?;
        println!("{} for {arch}: {} bytes of machine code", source.name, code.len());
        if let Some(folder) = cache::folder() {
            cache::keep(&folder, &cache::key(&source, arch), &code);
        }
    }
    Ok(true)
}

fn run(options: &Options) -> Result<bool, CudaError> {
    let mut device = Device::open(0, options.nvrtc.as_deref())?;
    let (mut passed, mut failed) = (0, 0);
    let few = if options.quick { 3 } else { usize::MAX };
    for case in cases().into_iter().take(few) {
        for kind in [Kind::Product, Kind::ExactGradient] {
            for data in DATA {
                let wrong = check(&device, &case, kind, data)?;
                if wrong == 0 {
                    passed += 1;
                } else {
                    failed += 1;
                    println!("FAILED {kind:?} {case:?} {data:?}: {wrong} values differ");
                }
            }
        }
    }
    let (more, worse) = reduce::check(&device)?;
    passed += more;
    failed += worse;
    if !options.check_only && failed == 0 {
        device.load(&extra())?;
        let mut tuning = Vec::new();
        for columns in ALU_COLUMNS {
            device.load(&[variant(columns)])?;
            tuning.push(measure::tuning(&device, columns)?);
        }
        device.load(&[contraction()])?;
        let report = measure::report(&device, &options.commit, tuning)?;
        let text = format!("{report:#}\n");
        if let Some(path) = &options.json {
            std::fs::write(path, &text)
                .map_err(|e| CudaError::Driver(format!("{}: {e}", path.display())))?;
        }
        print!("{text}");
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// A shape to check, with the operands' and the output's layout.
#[derive(Debug, Clone, Copy)]
struct Case {
    batch: usize,
    rows: usize,
    cols: usize,
    depth: usize,
    turned: [bool; 3],
}

fn cases() -> Vec<Case> {
    let case = |batch, rows, cols, depth, turned| Case { batch, rows, cols, depth, turned };
    vec![
        case(1, 128, 128, 256, [false, false, false]),
        case(1, 130, 131, 35, [false, false, false]),
        case(2, 20, 140, 700, [true, true, false]),
        case(1, 4, 4, 1, [false, false, true]),
        case(1, 136, 64, 264, [false, true, true]),
        case(3, 65, 129, 17, [true, false, false]),
        case(1, 12, 16, 3001, [true, false, true]),
        case(1, 513, 385, 400, [false, false, false]),
        // Enough tiles that the contraction is not split along k.
        case(300, 70, 40, 530, [false, true, false]),
    ]
}

fn strides(turned: bool, rows: usize, cols: usize) -> Strides {
    if turned { Strides { row: 1, col: rows as u64 } } else { Strides { row: cols as u64, col: 1 } }
}

/// The shape that a contraction of dense matrices has.
fn shape(case: &Case, kind: Kind) -> Shape {
    let Case { batch, rows, cols, depth, turned } = *case;
    Shape {
        kind,
        rows: rows as u32,
        cols: cols as u32,
        depth: depth as u32,
        left: strides(turned[0], rows, depth),
        right: strides(turned[1], depth, cols),
        out: strides(turned[2], rows, cols),
        own: strides(turned[2], rows, cols),
        batch: (0..batch)
            .map(|i| {
                let out = i * rows * cols;
                [i * rows * depth, i * depth * cols, out, out].map(|x| x as u64)
            })
            .collect(),
        offset: 0,
        mantissa: 23,
    }
}

/// Number of outputs that differ from the specification, launched directly and from a graph.
fn check(device: &Device, case: &Case, kind: Kind, data: Data) -> Result<usize, CudaError> {
    let Case { batch, rows, cols, depth, .. } = *case;
    let mut random = Random(0x1234_5678_9ABC_DEF1 ^ (rows * 7919 + depth) as u64);
    let left = random.values(data, true, batch * rows * depth);
    let right = random.values(data, false, batch * depth * cols);
    let own = random.values(data, true, batch * rows * cols);
    let shape = shape(case, kind);
    let contraction = Contraction::new(device, shape.clone())?;
    let (l, r, o) = (
        upload(device, &left, "left")?,
        upload(device, &right, "right")?,
        upload(device, &own, "own")?,
    );
    let space = device.alloc(contraction.workspace(), "the workspace")?;
    let out = device.alloc(own.len() * 4, "out")?;
    let mut wrong = 0;
    let operands = [&l, &r, &o, &out].map(|buffer| buffer.address());
    let mut go = || {
        // SAFETY: the buffers hold the shape's dense matrices.
        unsafe { contraction.launch(device, space.address(), operands) }
    };
    let expected = expected(&shape, &left, &right, &own);
    let mut got = vec![0u32; own.len()];
    for replay in [false, true] {
        // SAFETY: the range is the buffer's. The pattern is a NaN that no result has.
        unsafe { device.fill(out.address(), 0xFF, out.bytes()) }?;
        if replay {
            // The graph has to live until it has run.
            let graph = device.record(&mut go)?;
            graph.replay()?;
            device.synchronize()?;
        } else {
            go()?;
        }
        download(device, &out, &mut got)?;
        wrong += got
            .iter()
            .zip(&expected)
            .filter(|&(&g, &e)| !spec::same(g, e) || g == 0xFFFF_FFFF)
            .count();
    }
    Ok(wrong)
}

/// The whole output by the specification, rows divided among threads.
fn expected(shape: &Shape, left: &[u32], right: &[u32], own: &[u32]) -> Vec<u32> {
    let mut out = vec![0u32; own.len()];
    let (rows, cols) = (shape.rows as usize, shape.cols as usize);
    let jobs: Vec<(usize, usize)> =
        (0..shape.batch.len()).flat_map(|b| (0..rows).map(move |i| (b, i))).collect();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let share = jobs.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let handles: Vec<_> = jobs
            .chunks(share)
            .map(|jobs| {
                scope.spawn(move || {
                    let mut values = Vec::with_capacity(jobs.len() * cols);
                    for &(b, i) in jobs {
                        for j in 0..cols {
                            values.push(element(shape, left, right, own, b, i, j));
                        }
                    }
                    values
                })
            })
            .collect();
        for (jobs, handle) in jobs.chunks(share).zip(handles) {
            let values = handle.join().expect("the specification does not panic");
            for (n, value) in values.into_iter().enumerate() {
                let (b, i) = jobs[n / cols];
                out[place(shape, b, i, n % cols)] = value;
            }
        }
    });
    out
}

fn place(shape: &Shape, b: usize, i: usize, j: usize) -> usize {
    (shape.batch[b][2] + i as u64 * shape.out.row + j as u64 * shape.out.col) as usize
}

/// One output element by the specification.
fn element(
    shape: &Shape,
    left: &[u32],
    right: &[u32],
    own: &[u32],
    b: usize,
    i: usize,
    j: usize,
) -> u32 {
    let at = |base: u64, s: &Strides, r: usize, c: usize| {
        (base + r as u64 * s.row + c as u64 * s.col) as usize
    };
    let [l0, r0, ..] = shape.batch[b];
    spec::sum(shape.depth as usize, |k| {
        let x = left[at(l0, &shape.left, i, k)];
        let y = right[at(r0, &shape.right, k, j)];
        match shape.kind {
            Kind::Product => spec::mul(x, y),
            Kind::ExactGradient => spec::mul_grad(own[place(shape, b, i, j)], y, x),
        }
    })
}
