//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Rewrites ONNX training steps without multiplications, certifies and runs them.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 certified or true, 1 a violation remains or a claim is false, 2 bad input or usage."
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub compile: Compile,
}

#[derive(Subcommand)]
pub enum Command {
    /// List every native multiplication of a file as it stands, or of the kernels' machine code
    Audit(Audit),
    /// Compile (unless compiled already) and execute once
    Run(Run),
    /// Run rewritten and native, and print the relative error of each output
    Compare(Compare),
    /// Compare two models by node name, with the rule that made each change
    Diff(Diff),
    /// Re-derive what a certificate states from the file alone
    Verify(Verify),
    /// Train: feed batches, carry the state, measure and save
    Train(Box<Train>),
    /// Print the op support table
    Ops(Ops),
}

/// Which models are read, and how.
#[derive(Args)]
pub struct Input {
    /// Models; several are linked into one step
    #[arg(required = true, value_name = "MODEL.onnx")]
    pub models: Vec<PathBuf>,
    /// Size of a symbolic dimension; of others, `run` and `compare` take those of the inputs
    #[arg(long = "dim", value_name = "NAME=SIZE")]
    pub dims: Vec<String>,
    /// State binding: an output and the input whose next value it is
    #[arg(long = "bind", value_name = "OUT=IN")]
    pub binds: Vec<String>,
    /// Values for inputs (.onnx initializers, .npz or .safetensors); repeatable
    #[arg(long = "init", value_name = "FILE")]
    pub inits: Vec<PathBuf>,
    /// Make a training step of a forward model: cross-entropy[:label_smoothing=…,axis=…], whose classes
    /// lie along the last axis unless `axis` says otherwise, mse, or the output that is the loss
    #[arg(long, value_name = "LOSS", requires = "optimizer")]
    pub loss: Option<String>,
    /// With --loss: sgd[:lr=…,momentum=…,weight_decay=…,nesterov=1] or
    /// adamw[:lr=…,beta1=…,beta2=…,eps=…,weight_decay=…]
    #[arg(long, value_name = "OPTIMIZER", requires = "loss")]
    pub optimizer: Option<String>,
    /// With --loss: weights whose name matches /regex/ are not trained; repeatable
    #[arg(long = "freeze", value_name = "/REGEX/", requires = "loss")]
    pub freeze: Vec<String>,
}

impl Input {
    /// Models as they stand.
    pub fn plain(models: Vec<PathBuf>, dims: Vec<String>) -> Input {
        Input {
            models,
            dims,
            binds: Vec::new(),
            inits: Vec::new(),
            loss: None,
            optimizer: None,
            freeze: Vec::new(),
        }
    }
}

/// How products are rewritten.
#[derive(Args)]
pub struct PolicyArgs {
    /// native, approx (the default), exact, paper, matmul or a policy file
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub policy: Option<String>,
    /// Mode of a component (matmul, softmax, norm, activation, loss, optimizer, other) or of the
    /// nodes whose name matches /regex/: native, approx or exact
    #[arg(long = "set", value_name = "COMPONENT=MODE")]
    pub sets: Vec<String>,
    /// Mantissa bits kept in the operands of contractions (1 to 23)
    #[arg(long, value_name = "M")]
    pub mantissa: Option<u32>,
    /// Error compensation α of products (at least 0.5, less than 2)
    #[arg(long, value_name = "A")]
    pub offset: Option<f32>,
    /// The approximate product: pam, or lmul of "Addition is All You Need"
    #[arg(long, value_name = "NAME")]
    pub multiplier: Option<String>,
    /// The backward pass: auto, keep the imported one, or regenerate it from the forward pass
    #[arg(long, value_name = "CHOICE")]
    pub backward: Option<String>,
}

impl PolicyArgs {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        self.policy.is_none()
            && self.sets.is_empty()
            && self.mantissa.is_none()
            && self.offset.is_none()
            && self.multiplier.is_none()
            && self.backward.is_none()
    }
}

/// What a compilation says, and where.
#[derive(Args)]
pub struct ReportArgs {
    /// Write the report as JSON
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
    /// Write the report as one self-contained page
    #[arg(long, value_name = "FILE.html")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub volume: Volume,
}

/// How much is printed.
#[derive(Args, Clone, Copy)]
pub struct Volume {
    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
    /// Print more
    #[arg(short, long)]
    pub verbose: bool,
}

/// A processor.
#[derive(Clone, Copy)]
pub enum Processor {
    /// This machine's.
    Cpu,
    /// A GPU, by its number.
    Cuda(usize),
}

fn processor(text: &str) -> Result<Processor, String> {
    match text {
        "cpu" => return Ok(Processor::Cpu),
        "cuda" => return Ok(Processor::Cuda(0)),
        _ => {}
    }
    let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
    let known = "there is no such device; use cpu, cuda or cuda:N";
    number.map(Processor::Cuda).ok_or_else(|| known.to_owned())
}

/// Where steps are executed.
#[derive(Args)]
pub struct Device {
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_parser = processor)]
    pub device: Processor,
    /// Threads; one for each core if not given
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// With --device cuda: libnvrtc, or its folder, if it is in none of the usual places
    #[arg(long, value_name = "PATH")]
    pub nvrtc: Option<PathBuf>,
}

/// A pool starts all of its threads, so that a slip must not ask for a million of them.
const MOST_THREADS: usize = 1024;

fn threads(text: &str) -> Result<usize, String> {
    let n = text.parse().map_err(|_| "no number of threads".to_owned())?;
    match n {
        0 => Err("at least one thread".to_owned()),
        1..=MOST_THREADS => Ok(n),
        _ => Err(format!("at most {MOST_THREADS} threads")),
    }
}

fn batch_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("a step needs a sample".to_owned()),
        found => found.map_err(|_| "no number of samples".to_owned()),
    }
}

#[derive(Args)]
pub struct Compile {
    #[command(flatten)]
    pub input: Input,
    /// The model to write; <stem>.pam.onnx beside the first model if not given
    #[arg(short, long, value_name = "OUT.onnx")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    pub report: ReportArgs,
    #[command(flatten)]
    pub device: Device,
}

#[derive(Args)]
pub struct Audit {
    /// Models; several are linked into one step
    #[arg(required_unless_present = "kernels", value_name = "MODEL.onnx")]
    pub models: Vec<PathBuf>,
    /// Size of a symbolic dimension; 1 if not given
    #[arg(long = "dim", value_name = "NAME=SIZE")]
    pub dims: Vec<String>,
    /// Disassemble the kernels of this executable instead
    #[arg(long, conflicts_with_all = ["models", "dims"])]
    pub kernels: bool,
    /// With --kernels: cpu or cuda
    #[arg(long, default_value = "cpu", requires = "kernels")]
    pub device: String,
    /// With --kernels --device cuda: the architecture to compile for
    #[arg(long, default_value = "sm_90a", requires = "kernels")]
    pub arch: String,
    /// With --kernels --device cuda: libnvrtc, or its folder, if it is in none of the usual places
    #[arg(long, value_name = "PATH", requires = "kernels")]
    pub nvrtc: Option<PathBuf>,
    /// Write the findings as JSON
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub volume: Volume,
}

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    pub input: Input,
    /// Values of the inputs that have none
    #[arg(long, value_name = "IN.npz")]
    pub inputs: Option<PathBuf>,
    /// Where to write the outputs
    #[arg(long, value_name = "OUT.npz")]
    pub outputs: PathBuf,
    #[command(flatten)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    pub report: ReportArgs,
    #[command(flatten)]
    pub device: Device,
}

#[derive(Args)]
pub struct Compare {
    #[command(flatten)]
    pub input: Input,
    /// Values of the inputs that have none
    #[arg(long, value_name = "IN.npz")]
    pub inputs: Option<PathBuf>,
    /// What computes natively
    #[arg(long, value_enum, default_value_t = Engine::Runtime)]
    pub engine: Engine,
    #[command(flatten)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    pub volume: Volume,
    #[command(flatten)]
    pub device: Device,
}

/// A native engine.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// This program's own native kernels
    Runtime,
    /// tract, which shares nothing with this program
    Tract,
}

#[derive(Args)]
pub struct Diff {
    /// The model before
    #[arg(value_name = "A.onnx")]
    pub before: PathBuf,
    /// The model after
    #[arg(value_name = "B.onnx")]
    pub after: PathBuf,
    /// Size of a symbolic dimension; 1 if not given
    #[arg(long = "dim", value_name = "NAME=SIZE")]
    pub dims: Vec<String>,
    #[command(flatten)]
    pub volume: Volume,
}

#[derive(Args)]
pub struct Verify {
    /// The written model
    #[arg(value_name = "OUT.onnx")]
    pub model: PathBuf,
    /// The report that came with it
    #[arg(long, value_name = "REPORT.json")]
    pub certificate: PathBuf,
    #[command(flatten)]
    pub volume: Volume,
}

#[derive(Args)]
pub struct Train {
    #[command(flatten)]
    pub input: Input,
    /// Samples (.npz or .safetensors): arrays named as inputs, with _train or _test behind the name; the
    /// accuracy is that of all test samples, the test loss that of the whole batches among them
    #[arg(long, value_name = "DATA.npz")]
    pub data: PathBuf,
    /// Passes over the training samples
    #[arg(long, default_value_t = 1)]
    pub epochs: usize,
    /// Samples a step: the size of the step's symbolic batch dimension, or a check of its fixed one
    #[arg(long, value_name = "B", value_parser = batch_size)]
    pub batch_size: Option<usize>,
    /// Learning rate (its peak); the step's own default if not given
    #[arg(long)]
    pub lr: Option<f64>,
    /// Course of the learning rate: constant or cosine
    #[arg(long, value_enum, default_value_t = Course::Constant)]
    pub schedule: Course,
    /// Steps of linear warm-up; a tenth of all for cosine if not given
    #[arg(long, value_name = "STEPS")]
    pub warmup: Option<usize>,
    /// The input that takes the learning rate; lr or learning_rate if not given
    #[arg(long, value_name = "INPUT")]
    pub lr_input: Option<String>,
    /// Seed of the shuffling
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The output that is the loss
    #[arg(long, value_name = "OUTPUT")]
    pub loss_output: Option<String>,
    /// The output whose largest element is the prediction
    #[arg(long, value_name = "OUTPUT")]
    pub logits_output: Option<String>,
    /// Write metrics, one JSON object a line
    #[arg(long, value_name = "FILE.jsonl")]
    pub metrics: Option<PathBuf>,
    /// Write the state after each epoch; <stem>.state.safetensors in the current folder if not given
    #[arg(long, value_name = "FILE.safetensors")]
    pub state: Option<PathBuf>,
    /// Also write it every so many steps
    #[arg(long, value_name = "STEPS")]
    pub save_every: Option<usize>,
    /// Go on from a state that training wrote
    #[arg(long, value_name = "FILE.safetensors")]
    pub resume: Option<PathBuf>,
    /// Stop after so many steps in all
    #[arg(long, value_name = "STEPS")]
    pub stop_after: Option<usize>,
    #[command(flatten)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    pub report: ReportArgs,
    #[command(flatten)]
    pub device: Device,
}

/// The course of a learning rate.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Course {
    /// The peak throughout
    Constant,
    /// Half a cosine down to zero
    Cosine,
}

#[derive(Args)]
pub struct Ops {
    /// How the table is printed
    #[arg(value_enum, default_value_t = TableForm::Text)]
    pub form: TableForm,
}

/// The form of the op table.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableForm {
    /// One line an op
    Text,
    /// A JSON array of rows
    Json,
    /// The page docs/ops.md
    Markdown,
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use clap::CommandFactory;

    #[test]
    fn arguments_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }
}
