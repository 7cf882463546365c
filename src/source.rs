//! Reading models: files, dimensions, bindings and initial values to a graph.

use crate::args::Input;
use crate::failure::Failure;
use pam_ir::graph::Graph;
use pam_ir::onnx::check::check_functions;
use pam_ir::onnx::external::sha256_hex;
use pam_ir::onnx::import::{ImportOptions, ModelFile, import, recorded_nodes};
use pam_ir::onnx::{load, tensor};
use pam_ir::tensor::Tensor;
use pam_passes::policy::Selector;
use pam_passes::step::{LossSpec, OptimizerSpec, StepOptions, build, warnings};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The metadata key under which a written model states what it was certified for.
pub const TARGET: &str = "pam.target";
/// The key of the policy that it was compiled under.
pub const POLICY: &str = "pam.policy";
/// The key of what was folded, in words.
pub const FOLDED: &str = "pam.constant_folded";

/// Models as they were read, and the graph that they are.
pub struct Source {
    /// The files, external data loaded.
    pub files: Vec<ModelFile>,
    /// SHA-256 of each file.
    pub sha256: Vec<String>,
    /// Whether tensors of the first file lay in a file beside it.
    pub external: bool,
    /// The graph, with the values of `--init`.
    pub graph: Graph,
    /// Symbolic dimensions whose size was not given.
    pub defaulted_dims: BTreeSet<String>,
    /// Control flow of which a part is left out.
    pub left_out: Vec<String>,
}

/// What a command tolerates when reading.
#[derive(Clone, Copy, Default)]
pub struct Tolerance {
    /// The size of symbolic dimensions that have none.
    pub default_dim: Option<usize>,
    /// Whether ops that the table does not know may stand in the graph.
    pub unknown_ops: bool,
}

impl Source {
    /// Reads models.
    pub fn read(input: &Input, tolerance: Tolerance) -> Result<Source, Failure> {
        Source::read_for(input, tolerance, &[])
    }

    /// Reads models whose symbolic dimensions are those of the values, where no size is given.
    pub fn read_for(
        input: &Input,
        tolerance: Tolerance,
        values: &[(String, Tensor)],
    ) -> Result<Source, Failure> {
        let mut options = ImportOptions {
            shapes: values.iter().map(|(n, t)| (n.clone(), t.shape().to_vec())).collect(),
            default_dim: tolerance.default_dim,
            keep_unknown: tolerance.unknown_ops,
            ..ImportOptions::default()
        };
        for text in &input.dims {
            let pair = text.rsplit_once('=').and_then(|(n, s)| Some((n, s.parse::<usize>().ok()?)));
            let Some((name, size)) = pair else {
                return Err(Failure::new(format!("--dim {text}: is not of the form NAME=SIZE")));
            };
            if options.dims.insert(name.to_owned(), size).is_some_and(|other| other != size) {
                return Err(Failure::new(format!(
                    "--dim {text}: `{name}` has another size already"
                )));
            }
        }
        for text in &input.binds {
            // The names of outputs may hold `=`, those of inputs rarely do.
            let Some((new, old)) = text.rsplit_once('=') else {
                return Err(Failure::new(format!("--bind {text}: is not of the form OUT=IN")));
            };
            options.bind.push((new.to_owned(), old.to_owned()));
        }
        let mut files = Vec::new();
        let mut sha256 = Vec::new();
        let mut external = false;
        for path in &input.models {
            let bytes = read_bytes(path)?;
            sha256.push(sha256_hex(&bytes));
            let mut model = load::decode(path, &bytes)?;
            external |= files.is_empty() && load::has_external(&model);
            load::load_external(path, &mut model)?;
            files.push(ModelFile { path: path.clone(), model });
        }
        let imported = import(&files, &options)?;
        for name in options.dims.keys().filter(|name| !imported.given_dims.contains(*name)) {
            let path = files[0].path.display();
            eprintln!(
                "warning: {path}: --dim {name}: no input has a symbolic dimension of that name"
            );
        }
        let mut graph = imported.graph;
        for path in &input.inits {
            initialize(&mut graph, path)?;
        }
        if let (Some(loss), Some(optimizer)) = (&input.loss, &input.optimizer) {
            graph = training_step(&files[0].path, &graph, loss, optimizer, &input.freeze)?;
        }
        let (defaulted_dims, left_out) = (imported.defaulted_dims, imported.left_out);
        Ok(Source { files, sha256, external, graph, defaulted_dims, left_out })
    }

    /// The first file.
    pub fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |f| &f.path)
    }

    /// What the file says it was certified for, if it was written by this program.
    pub fn stated_target(&self) -> Option<&str> {
        self.graph.meta.properties.get(TARGET).map(String::as_str)
    }

    /// A note for people where the first file carries a `training_info` that is no part of the step.
    pub fn record(&self) -> Option<String> {
        let nodes = self.files.first().map_or(0, |f| recorded_nodes(&f.model));
        (nodes > 0).then(|| {
            format!(
                "{}: `training_info` is a record of the source ({nodes} nodes, not looked into): the graph \
                 computes its outputs",
                self.path().display()
            )
        })
    }

    /// Checks that the functions that the file's PA primitives call are what the primitives stand for.
    pub fn check_functions(&self) -> Result<(), Vec<String>> {
        match &self.files[..] {
            [file] => check_functions(&file.model, &self.graph),
            files => {
                let mut all = files.iter().flat_map(|f| &f.model.functions);
                match all.find(|f| f.domain() == "pam") {
                    Some(_) => Err(vec!["a compiled model cannot be linked".to_owned()]),
                    None => Ok(()),
                }
            }
        }
    }

    /// Refuses a model with functions of its own in the domain `pam` that are not the primitives they are
    /// named after: they would be taken for these.
    pub fn check_foreign(&self) -> Result<(), Failure> {
        if self.files.iter().all(|f| f.model.functions.iter().all(|f| f.domain() != "pam")) {
            return Ok(());
        }
        self.check_functions().map_err(|faults| {
            let reason = format!("{}; give its functions another domain", faults[0]);
            Failure::file(self.path(), reason)
        })
    }
}

/// Reads a whole file.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|e| Failure::file(path, format!("cannot be read: {e}; check the path")))
}

/// The training step of a forward graph.
fn training_step(
    path: &Path,
    graph: &Graph,
    loss: &str,
    optimizer: &str,
    freeze: &[String],
) -> Result<Graph, Failure> {
    let fail = |option: &str, e: String| Failure::new(format!("{option}: {e}"));
    let freeze = freeze.iter().map(|text| match Selector::parse(text) {
        Ok(Selector::Name(regex)) => Ok(regex),
        Ok(Selector::Component(_)) => Err(fail("--freeze", format!("`{text}` is no /regex/"))),
        Err(e) => Err(fail("--freeze", e)),
    });
    let options = StepOptions {
        loss: LossSpec::parse(loss).map_err(|e| fail("--loss", e))?,
        optimizer: OptimizerSpec::parse(optimizer).map_err(|e| fail("--optimizer", e))?,
        freeze: freeze.collect::<Result<_, _>>()?,
    };
    let step = build(graph, &options).map_err(|e| Failure::compile(path, graph, &e))?;
    for warning in warnings(&step) {
        eprintln!("warning: {}: {warning}", path.display());
    }
    Ok(step)
}

/// Gives inputs the values of a file; names that are no inputs are left aside.
fn initialize(graph: &mut Graph, path: &Path) -> Result<(), Failure> {
    let values = named_values(path)?;
    let mut used = 0;
    for id in graph.inputs.clone() {
        let value = &mut graph.values[id.index()];
        let Some((_, tensor)) = values.iter().find(|(name, _)| *name == value.name) else {
            continue;
        };
        if tensor.ty() != value.ty {
            let (name, expected, got) = (&value.name, &value.ty, tensor.ty());
            let reason = format!("`{name}` is {got}, but the input is {expected}; convert it");
            return Err(Failure::file(path, reason));
        }
        value.data = Some(tensor.clone());
        used += 1;
    }
    if used == 0 {
        let names: Vec<&str> = graph.inputs.iter().map(|&v| graph.value(v).name.as_str()).collect();
        let some = names.iter().take(5).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        let reason =
            format!("holds a value for none of the inputs ({some}, …); rename its tensors");
        return Err(Failure::file(path, reason));
    }
    Ok(())
}

fn named_values(path: &Path) -> Result<Vec<(String, Tensor)>, Failure> {
    if path.extension().is_some_and(|e| e == "onnx") {
        let model = load::load(path)?;
        let initializers = model.graph.iter().flat_map(|g| &g.initializer);
        return initializers
            .map(|t| {
                Ok((t.name().to_owned(), tensor::read(t).map_err(|e| Failure::file(path, e))?))
            })
            .collect();
    }
    Ok(pam_runtime::io::read(path)?)
}

/// Reads the values of inputs for one execution.
pub fn input_values(path: Option<&PathBuf>) -> Result<Vec<(String, Tensor)>, Failure> {
    path.map_or(Ok(Vec::new()), |p| Ok(pam_runtime::io::npz::read(p)?))
}
