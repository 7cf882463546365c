//! From ONNX messages to the graph.
//!
//! The importer makes what a file declares (`declared.rs`), walks the nodes once, in topological order, and appends
//! to a [`Builder`]. On the way it inlines model-local functions (`inline.rs`) and control flow whose course is known
//! (`control.rs`), brings old forms of ops to the form of the op table (`upgrade.rs`), translates ops
//! that the table lacks into those it has (`translate/`), and moves operands that must be known into
//! attributes (`node.rs`). It evaluates shape arithmetic as it goes, since shapes depend on it, but leaves the
//! evaluated nodes in the graph: folding them is a pass, and an audit shows a file as it stands.

mod bindings;
mod body;
mod control;
mod declared;
mod draft;
mod flex;
mod inline;
mod node;
mod place;
mod training;
mod translate;
mod upgrade;

pub use training::recorded_nodes;
pub use translate::translated;

use super::error::{At, OnnxError};
use super::proto::{FunctionProto, GraphProto, ModelProto, StringStringEntryProto, ValueInfoProto};
use crate::build::Builder;
use crate::graph::{Graph, Meta, ValueId};
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The oldest opset of the standard domain that is read.
pub const MIN_OPSET: i64 = 7;
/// The newest opset of the standard domain that is read.
pub const MAX_OPSET: i64 = 28;

/// How to import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Sizes of symbolic dimensions by name; a dimension without name is `<input>.<axis>`.
    pub dims: BTreeMap<String, usize>,
    /// The size of symbolic dimensions that `dims` does not name; an error if `None`.
    pub default_dim: Option<usize>,
    /// Shapes of inputs that will be fed, by name: the sizes of symbolic dimensions that `dims` does not name.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Whether ops that the table does not know become opaque nodes, for audits; they need types in
    /// the file's `value_info`. An error otherwise.
    pub keep_unknown: bool,
    /// State bindings, (output, input).
    pub bind: Vec<(String, String)>,
}

/// One file to import.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// Where it was read from, for messages.
    pub path: PathBuf,
    /// Its content, external data loaded.
    pub model: ModelProto,
}

/// An imported step.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The graph.
    pub graph: Graph,
    /// Symbolic dimensions that got [`ImportOptions::default_dim`].
    pub defaulted_dims: BTreeSet<String>,
    /// Symbolic dimensions that got one of [`ImportOptions::dims`].
    pub given_dims: BTreeSet<String>,
    /// Control flow of which a part is left out: branches that are not taken, loops of no rounds.
    pub left_out: Vec<String>,
}

/// Imports one model, or links several into one step: an input of a later file that has the name of
/// an input or output of an earlier one is the same value.
///
/// # Errors
/// The first thing that cannot be imported, or that the file does not say rightly.
pub fn import(files: &[ModelFile], options: &ImportOptions) -> Result<Imported, OnnxError> {
    let first = files
        .first()
        .ok_or_else(|| OnnxError::file(Path::new(""), "no model is given", "name an .onnx file"))?;
    let name = first.model.graph.as_ref().map_or("", |g| g.name());
    let mut importer = Importer {
        options,
        builder: Builder::new(if name.is_empty() { "graph" } else { name }),
        known: HashMap::new(),
        defaulted_dims: BTreeSet::new(),
        given_dims: BTreeSet::new(),
        fed_dims: BTreeMap::new(),
        budget: NODE_LIMIT,
        left_out: Vec::new(),
        unknown: Vec::new(),
        sequences: translate::Sequences::default(),
    };
    let mut names: HashMap<String, ValueId> = HashMap::new();
    let mut outputs: Vec<(String, ValueId)> = Vec::new();
    for file in files {
        importer.file(file, &mut names, &mut outputs)?;
    }
    if let Some(error) = importer.unknown_ops() {
        return Err(error);
    }
    let updates = std::mem::take(&mut importer.sequences.updates);
    let updates = updates.into_iter().filter(|(n, _)| !outputs.iter().any(|(o, _)| o == n));
    for (name, value) in outputs.iter().cloned().chain(updates.collect::<Vec<_>>()) {
        importer.builder.output(&name, value);
    }
    let mut graph = importer.builder.finish();
    // Constants that became attributes are written anew on export.
    graph.drop_unused_values();
    graph.meta = meta(&first.model);
    graph.bindings = bindings::find(files, &graph, options)?;
    let Importer { defaulted_dims, given_dims, left_out, .. } = importer;
    Ok(Imported { graph, defaulted_dims, given_dims, left_out })
}

/// Unrolling may not make more nodes than this.
const NODE_LIMIT: usize = 1_000_000;

fn meta(model: &ModelProto) -> Meta {
    let producer = format!("{} {}", model.producer_name(), model.producer_version());
    let opset = model.opset_import.iter().find(|o| is_standard(o.domain()));
    let pairs = |entries: &[StringStringEntryProto]| {
        entries.iter().map(|p| (p.key().to_owned(), p.value().to_owned())).collect()
    };
    Meta {
        producer: producer.trim().to_owned(),
        opset: opset.map_or(0, |o| o.version()),
        properties: pairs(&model.metadata_props),
        graph_properties: model
            .graph
            .as_ref()
            .map_or_else(BTreeMap::new, |g| pairs(&g.metadata_props)),
        doc: model.doc_string().to_owned(),
    }
}

/// Whether a domain is the standard one.
pub(super) fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

struct Importer<'a> {
    options: &'a ImportOptions,
    builder: Builder,
    /// Values whose elements are known: constants and what shape arithmetic made of them.
    known: HashMap<ValueId, Tensor>,
    defaulted_dims: BTreeSet<String>,
    given_dims: BTreeSet<String>,
    fed_dims: BTreeMap<String, usize>,
    /// Nodes that may still be made.
    budget: usize,
    /// Control flow of which a part is left out.
    left_out: Vec<String>,
    /// Ops the table does not know; all are reported at once.
    unknown: Vec<(PathBuf, At)>,
    /// Sequences of tensors, and what is updated in place.
    sequences: translate::Sequences,
}

/// What holds for all nodes of one file or of one function's body.
struct Context<'f> {
    path: &'f Path,
    opsets: BTreeMap<&'f str, i64>,
    functions: &'f HashMap<FunctionKey<'f>, &'f FunctionProto>,
    /// Types that the file states, for ops without a shape rule.
    stated: &'f HashMap<&'f str, &'f ValueInfoProto>,
    /// Attributes of the call that is being inlined.
    arguments: Option<&'f inline::Arguments<'f>>,
    /// What stands before the names of nodes and values of an inlined body.
    prefix: String,
    /// How many calls deep the body is.
    depth: usize,
}

type FunctionKey<'f> = (&'f str, &'f str, &'f str);

/// The names that are visible in a body.
#[derive(Default)]
struct Names<'p> {
    own: HashMap<String, ValueId>,
    outer: Option<&'p Names<'p>>,
}

impl Names<'_> {
    fn get(&self, name: &str) -> Option<ValueId> {
        self.own.get(name).copied().or_else(|| self.outer?.get(name))
    }
}

impl Context<'_> {
    fn error(&self, reason: impl Into<String>, remedy: &str) -> OnnxError {
        OnnxError::file(self.path, reason, remedy)
    }
}

impl Importer<'_> {
    fn file(
        &mut self,
        file: &ModelFile,
        linked: &mut HashMap<String, ValueId>,
        outputs: &mut Vec<(String, ValueId)>,
    ) -> Result<(), OnnxError> {
        let model = &file.model;
        let graph = training::joined(model, &self.options.bind).ok_or_else(|| {
            OnnxError::file(&file.path, "the model holds no graph", "export it again")
        })?;
        let graph: &GraphProto = &graph;
        let opsets = opsets(&file.path, model)?;
        let functions = functions(&file.path, model)?;
        let stated = graph.value_info.iter().chain(&graph.output).map(|v| (v.name(), v)).collect();
        let context = Context {
            path: &file.path,
            opsets,
            functions: &functions,
            stated: &stated,
            arguments: None,
            prefix: String::new(),
            depth: 0,
        };
        let mut names = Names::default();
        self.inputs(&context, graph, model.ir_version(), linked, &mut names)?;
        self.body(&context, &mut names, &graph.node)?;
        let mut seen = BTreeSet::new();
        for output in &graph.output {
            let name = output.name();
            let value = names.get(name).ok_or_else(|| {
                context.error(format!("output `{name}` is computed by no node"), "export it again")
            })?;
            if !seen.insert(name) || outputs.iter().any(|(n, _)| n == name) {
                let reason = format!("two outputs have the name `{name}`");
                return Err(context.error(reason, "rename one"));
            }
            if self.sequences.is_known(value) {
                let reason = format!("output `{name}` is a sequence");
                return Err(context.error(reason, "export its tensors as outputs"));
            }
            self.check_stated(&context, output, value)?;
            outputs.push((name.to_owned(), value));
            linked.insert(name.to_owned(), value);
        }
        Ok(())
    }

    /// Adds a constant whose elements are known from now on.
    fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let value = self.builder.constant(name, tensor.clone());
        self.known.insert(value, tensor);
        value
    }

    /// Gives a value a name in a body; ONNX forbids to give a name twice.
    fn define(
        &mut self,
        context: &Context<'_>,
        names: &mut Names<'_>,
        name: &str,
        value: ValueId,
    ) -> Result<(), OnnxError> {
        match names.own.insert(name.to_owned(), value) {
            None if !name.is_empty() => Ok(()),
            None => Err(context.error("an input has no name", "export it again")),
            Some(_) => {
                let reason = format!("the name `{name}` is given to two values");
                Err(context.error(reason, "rename one"))
            }
        }
    }

    /// All unknown ops as one error.
    fn unknown_ops(&self) -> Option<OnnxError> {
        let (path, at) = self.unknown.first()?;
        let others: BTreeSet<&str> =
            self.unknown.iter().map(|(_, at)| at.op.as_str()).filter(|op| *op != at.op).collect();
        let mut reason = "the compiler does not know this op".to_owned();
        if !others.is_empty() {
            let list: Vec<&str> = others.into_iter().collect();
            reason = format!("{reason}, nor {}", list.join(", "));
        }
        Some(OnnxError {
            path: path.clone(),
            at: Some(Box::new(at.clone())),
            reason,
            remedy: "`pam-compile ops` lists the known ones; export with others".to_owned(),
        })
    }
}

/// The functions of a model. Where one has the name of an op, each runtime decides by itself which of them counts.
fn functions<'m>(
    path: &Path,
    model: &'m ModelProto,
) -> Result<HashMap<FunctionKey<'m>, &'m FunctionProto>, OnnxError> {
    let mut functions = HashMap::new();
    for f in &model.functions {
        let name = match f.domain() {
            "" => f.name().to_owned(),
            domain => format!("{domain}::{}", f.name()),
        };
        let vendors = ["ai.onnx.", "com.microsoft."];
        let vendor = vendors.iter().any(|v| format!("{}.", f.domain()).starts_with(v));
        if is_standard(f.domain()) || vendor {
            let reason = format!("the function `{name}` may be taken for an op of the runtime");
            return Err(OnnxError::file(path, reason, "give it a domain of its own"));
        }
        if functions.insert((f.domain(), f.name(), f.overload()), f).is_some() {
            let reason = format!("two functions have the name `{name}`");
            return Err(OnnxError::file(path, reason, "rename one"));
        }
    }
    Ok(functions)
}

fn opsets<'m>(path: &Path, model: &'m ModelProto) -> Result<BTreeMap<&'m str, i64>, OnnxError> {
    let mut opsets = BTreeMap::new();
    for o in &model.opset_import {
        let domain = if is_standard(o.domain()) { "" } else { o.domain() };
        opsets.insert(domain, o.version());
    }
    let version = *opsets.entry("").or_insert(1);
    if (MIN_OPSET..=MAX_OPSET).contains(&version) {
        return Ok(opsets);
    }
    // A model of vendor ops alone may import no standard opset.
    let uses_standard = model.graph.iter().flat_map(|g| &g.node).any(|n| is_standard(n.domain()));
    if !uses_standard {
        return Ok(opsets);
    }
    let reason = format!("opset {version} is not supported");
    let remedy = format!("export with opset {MIN_OPSET} to {MAX_OPSET}");
    Err(OnnxError::file(path, reason, remedy))
}
