//! Elementwise nodes and reductions of rows as operations of a [`Draft`].

use super::alias::Aliases;
use super::draft::{Draft, Read, Virtual};
use super::movement;
use crate::exec::program::{Format, Per};
use crate::host::pointwise::{Function, Immediate, known};
use crate::host::strided::{Strided, broadcast_strides};
use crate::steps::reduce::Reduce;
use pam_ir::graph::{Graph, Node, NodeId, ValueId};
use pam_ir::op::{Level, Op};
use pam_ir::tensor::Tensor;
use pam_ir::types::DType;

/// An output of a node, or all outputs of a node that runs by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The node.
    pub node: NodeId,
    /// The output, for items of programs.
    pub output: usize,
}

/// Tensors that the plan needs beside the constants of the graph, numbered as values that follow
/// those of the graph.
pub struct Literals {
    first: u32,
    /// The tensors.
    pub tensors: Vec<Tensor>,
}

impl Literals {
    /// None so far, for a graph.
    pub fn new(graph: &Graph) -> Literals {
        Literals { first: graph.values.len() as u32, tensors: Vec::new() }
    }

    fn add(&mut self, tensor: Tensor) -> ValueId {
        self.tensors.push(tensor);
        ValueId(self.first + self.tensors.len() as u32 - 1)
    }
}

/// The longest rows that are reduced within a program: so many floats are half of a second-level cache.
const MAX_ROW: usize = 32 * 1024;

/// Whether a node is elementwise: each element of its results depends on at most one element of
/// each operand, at a place that strides describe.
pub fn is(graph: &Graph, node: &Node) -> bool {
    let ty = |i: usize| node.input(i).map(|v| graph.ty(v).dtype);
    match node.op {
        Op::Identity | Op::Reshape | Op::Flatten | Op::Squeeze | Op::Unsqueeze => true,
        Op::Transpose | Op::Expand | Op::Tile | Op::Slice | Op::Split => true,
        Op::DepthToSpace | Op::SpaceToDepth | Op::ConstantOfShape => true,
        Op::Cast => true,
        Op::BitCast => {
            let to = node.output(0).map(|v| graph.ty(v).dtype.size());
            ty(0).map(DType::size) == to
        }
        Op::Sum => ty(0).is_some_and(|t| known(Op::Add, t)),
        Op::Clip => ty(0).is_some_and(|t| known(Op::Max, t)),
        Op::Where => true,
        Op::PamMatMul | Op::PamConv | Op::PamMatMulGradA | Op::PamMatMulGradB | Op::PamUniform => {
            false
        }
        op if op.level() == Level::Pam => ty(0) == Some(DType::F32),
        op => ty(0).is_some_and(|t| known(op, t)),
    }
}

/// The reduction that a node is, and the length of the rows it reduces, where it is one of floats along
/// the last dimensions, whose rows are short enough to stay in the cache.
pub fn reduction_of_rows(graph: &Graph, node: &Node) -> Option<(Reduce, usize)> {
    if !matches!(node.op, Op::ReduceSum | Op::ReduceMax | Op::ReduceMin) {
        return None;
    }
    let reduce = Reduce::of(graph, node).ok()?;
    match reduce.passes[..] {
        [[_, row @ 2..=MAX_ROW, 1]] if reduce.dtype == DType::F32 => Some((reduce, row)),
        _ => None,
    }
}

/// How an elementwise node reads an operand; `None` for element i for element i.
///
/// # Errors
/// Where the attributes do not fit the shapes.
pub fn walk_of_operand(
    graph: &Graph,
    node: &Node,
    output: usize,
    operand: ValueId,
) -> Result<Option<Strided>, String> {
    if !is(graph, node) {
        return Err("not elementwise".to_owned());
    }
    let walk = match movement::walk(graph, node, output)? {
        Some(walk) => walk,
        None => {
            let to = node.output(output).ok_or("the output is missing")?;
            let (from, to) = (&graph.ty(operand).shape, &graph.ty(to).shape);
            Strided::new(to, &broadcast_strides(from, to), 0)
        }
    };
    let direct = walk.is_contiguous() && walk.offset == 0;
    Ok((!direct || walk.count() == 1 && graph.ty(operand).elements() != 1).then_some(walk))
}

/// Appends an item to a draft.
///
/// # Errors
/// Where the attributes do not fit.
pub fn append(
    draft: &mut Draft,
    graph: &Graph,
    aliases: &Aliases,
    literals: &mut Literals,
    item: Item,
) -> Result<(), String> {
    let node = graph.node(item.node);
    let output = node.output(item.output).ok_or("the output is missing")?;
    let to = graph.ty(output).dtype;
    if let Some((reduce, _)) = reduction_of_rows(graph, node) {
        let v = node.input(0).ok_or("no input")?;
        let arg = operand(draft, graph, aliases, v, None, Per::Element);
        let result = draft.reduce(reduce.reduction, arg);
        draft.define(output, result);
        return Ok(());
    }
    let n = graph.ty(output).elements();
    let per = draft.per(n);
    let mut args = Vec::new();
    if movement::walk(graph, node, item.output)?.is_some() {
        args.push(arg(draft, graph, aliases, item, node.input(0).ok_or("no input")?)?);
    } else if node.op == Op::ConstantOfShape {
        let value = match node.attr("value") {
            Some(pam_ir::attr::Attr::Tensor(t)) => {
                t.reshaped(vec![]).ok_or("value has no single element")?
            }
            _ => Tensor::scalar(0f32),
        };
        let (root, size) = (literals.add(value), to.size());
        let (format, walk) = (Format { size, per }, Some(Strided::new(&[n], &[0], 0)));
        args.push(draft.read(Read { root, offset: 0, format, span: size, walk }));
    } else {
        for v in &node.inputs {
            args.push(match v {
                Some(v) => arg(draft, graph, aliases, item, *v)?,
                None => Virtual::Operand(u32::MAX),
            });
        }
    }
    let given = |i: usize| node.input(i).map(|v| (graph.ty(v).dtype, args[i]));
    let from = node.input(0).map_or(to, |v| graph.ty(v).dtype);
    let imm = immediate(node);
    let result = match node.op {
        Op::ConstantOfShape => args[0],
        _ if args.len() == 1 && movement::walk(graph, node, item.output)?.is_some() => args[0],
        Op::Sum | Op::Max | Op::Min => {
            let op = if node.op == Op::Sum { Op::Add } else { node.op };
            let fold = |acc, &x: &Virtual| draft.operation(function(op, from, to), &[acc, x], per);
            args[1..].iter().fold(args[0], fold)
        }
        Op::Clip => {
            let mut x = args[0];
            for (i, op) in [(1, Op::Max), (2, Op::Min)] {
                if let Some((_, bound)) = given(i) {
                    x = draft.operation(function(op, from, to), &[x, bound], per);
                }
            }
            x
        }
        Op::Pow => {
            let (_, mut y) = given(1).ok_or("no exponent")?;
            let exponent = node.input(1).map_or(from, |v| graph.ty(v).dtype);
            let double = !from.is_float() && exponent.is_float();
            let work = if double { DType::F64 } else { from };
            let x = cast(draft, args[0], from, work, per);
            y = cast(draft, y, exponent, work, per);
            let z = draft.operation(function(Op::Pow, work, work), &[x, y], per);
            cast(draft, z, work, to, per)
        }
        Op::Where => {
            let from = given(1).map_or(to, |(t, _)| t);
            draft.operation(function(Op::Where, from, to), &args, per)
        }
        Op::Cast => draft.operation(function(Op::Cast, from, to), &args[..1], per),
        op => draft.operation(Function { imm, ..function(op, from, to) }, &args, per),
    };
    // A movement, a fold over one operand or a clip without bounds is that operand.
    let result = draft.spread(result, per);
    draft.define(output, result);
    Ok(())
}

fn function(op: Op, from: DType, to: DType) -> Function {
    Function { op, from, to, imm: Immediate::default() }
}

fn cast(draft: &mut Draft, x: Virtual, from: DType, to: DType, per: Per) -> Virtual {
    if from == to { x } else { draft.operation(function(Op::Cast, from, to), &[x], per) }
}

fn arg(
    draft: &mut Draft,
    graph: &Graph,
    aliases: &Aliases,
    item: Item,
    v: ValueId,
) -> Result<Virtual, String> {
    let node = graph.node(item.node);
    let walk = walk_of_operand(graph, node, item.output, v)?;
    let to = node.output(item.output).ok_or("the output is missing")?;
    let per = draft.per(graph.ty(to).elements());
    Ok(operand(draft, graph, aliases, v, walk, per))
}

/// The register of a value that is read in this order for a result of this kind.
fn operand(
    draft: &mut Draft,
    graph: &Graph,
    aliases: &Aliases,
    v: ValueId,
    walk: Option<Strided>,
    per: Per,
) -> Virtual {
    let alias = aliases.of(v);
    let here = draft.value(alias.root).filter(|_| alias.whole(graph, v));
    if let Some(register) = here {
        let known = draft.format(register).map(|f| f.per);
        if walk.is_none() && known == Some(per) {
            return register;
        }
        if known == Some(Per::Row) && walk.as_ref() == Some(&draft.spreading()) {
            return register;
        }
    }
    let ty = graph.ty(v);
    let format = Format { size: ty.dtype.size(), per };
    draft.read(Read { root: alias.root, offset: alias.offset, format, span: ty.bytes(), walk })
}

fn immediate(node: &Node) -> Immediate {
    let int = |name| node.int(name).unwrap_or(0);
    let float = |name| node.float(name).unwrap_or(0.0);
    let mut imm = Immediate::default();
    match node.op {
        Op::Mod => imm.int = int("fmod"),
        Op::BitShift => imm.int = i64::from(node.str("direction") == Some("LEFT")),
        Op::IsInf => imm.int = int("detect_negative") | int("detect_positive") << 1,
        Op::ThresholdedRelu => imm.float[0] = float("alpha"),
        Op::Shrink => imm.float = [float("bias"), float("lambd")],
        Op::PamScale => imm.int = int("exponent"),
        Op::PamRound => imm.int = int("mantissa"),
        op if op.level() == Level::Pam => imm.int = int("offset"),
        _ => {}
    }
    imm
}
