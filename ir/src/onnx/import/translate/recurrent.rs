//! Recurrent layers, unrolled: each step is a matrix product with the state and elementwise functions.

use super::{Outputs, Result, Translation};
use crate::attr::Attr;
use crate::graph::ValueId;
use crate::op::Op;
use crate::types::{DType, Type};

/// Long short-term memory: `i, o, f = σ(x Wᵀ + h Rᵀ + P c + b)`, o with c' for c, `c' = f c + i tanh(x Wᵀ + h Rᵀ + b)`,
/// `h' = o tanh(c')`.
pub(super) fn lstm(v: &mut Translation<'_, '_>) -> Outputs {
    layer(
        v,
        &Kind { gates: 4, states: 2, activations: &["Sigmoid", "Tanh", "Tanh"], step: lstm_step },
    )
}

/// Gated recurrent unit: `z, r = σ(x Wᵀ + h Rᵀ + b)`, `n = tanh(x Wᵀ + (r h) Rᵀ + b)`, `h' = (1 − z) n + z h`.
pub(super) fn gru(v: &mut Translation<'_, '_>) -> Outputs {
    layer(v, &Kind { gates: 3, states: 1, activations: &["Sigmoid", "Tanh"], step: gru_step })
}

/// Elman network: `h' = tanh(x Wᵀ + h Rᵀ + b)`.
pub(super) fn rnn(v: &mut Translation<'_, '_>) -> Outputs {
    layer(v, &Kind { gates: 1, states: 1, activations: &["Tanh"], step: rnn_step })
}

/// A step of one direction: the new states of what the input contributes, `[batch, gates · hidden]`, and of the
/// states, `[batch, hidden]` each.
type Step = fn(&mut Translation<'_, '_>, &Direction, ValueId, &[ValueId]) -> Result<Vec<ValueId>>;

/// A kind of layer.
struct Kind {
    gates: usize,
    states: usize,
    activations: &'static [&'static str],
    step: Step,
}

/// What one direction of a layer computes with.
struct Direction {
    /// The recurrent weights, `[hidden, gates · hidden]`.
    recurrent: ValueId,
    /// The recurrent bias, `[gates · hidden]`.
    bias: Option<ValueId>,
    /// The weights of the cell state in the gates i, o and f, `[hidden]` each.
    peepholes: Vec<ValueId>,
    activations: Vec<Activation>,
}

/// An activation with its parameters.
#[derive(Clone)]
struct Activation {
    name: String,
    alpha: f32,
    beta: f32,
}

fn layer(v: &mut Translation<'_, '_>, kind: &Kind) -> Outputs {
    let batch_first = v.int("layout", 0) != 0;
    let swap = |v: &mut Translation<'_, '_>, x: ValueId| -> Result {
        if batch_first { v.transpose(x, &[1, 0, 2]) } else { Ok(x) }
    };
    let (x, w, r) = (v.x(0)?, v.x(1)?, v.x(2)?);
    let x = swap(v, x)?;
    let (Ok([steps, batch, size]), Ok([directions, wide, hidden])) =
        (<[usize; 3]>::try_from(v.ty(x).shape), <[usize; 3]>::try_from(v.ty(r).shape))
    else {
        return Err(format!("the input is {}, the recurrent weights are {}", v.ty(x), v.ty(r)));
    };
    let direction = v.str("direction").unwrap_or("forward").to_owned();
    if wide != kind.gates * hidden || directions != 1 + usize::from(direction == "bidirectional") {
        return Err(format!("the recurrent weights {} do not fit a {direction} layer", v.ty(r)));
    }
    let lengths = v.given(4);
    let mut initial = Vec::new();
    for i in 0..kind.states {
        let first = match v.given(5 + i) {
            Some(given) => {
                let given = v.importer.start(given)?;
                swap(v, given)?
            }
            None => v.zeros(&Type::new(v.ty(x).dtype, [directions, batch, hidden]))?,
        };
        initial.push(v.parts(first, 0, directions)?);
    }
    let weights = v.parts(w, 0, directions)?;
    let recurrent = v.parts(r, 0, directions)?;
    let flat = v.reshape(x, &[steps * batch, size])?;
    let (mut all, mut last) = (Vec::new(), vec![Vec::new(); kind.states]);
    for d in 0..directions {
        let w = v.reshape(weights[d], &[wide, size])?;
        let w = v.transpose(w, &[1, 0])?;
        let mut inputs = v.op(Op::MatMul, &[flat, w])?;
        let r = v.reshape(recurrent[d], &[wide, hidden])?;
        let recurrent = v.transpose(r, &[1, 0])?;
        let mut bias = None;
        if let Some(given) = v.given(3) {
            let own = v.parts(given, 0, directions)?[d];
            let own = v.reshape(own, &[2 * wide])?;
            let both = v.parts(own, 0, 2)?;
            inputs = v.add(inputs, both[0])?;
            bias = Some(both[1]);
        }
        let mut peepholes = Vec::new();
        if let Some(given) = v.given(7).filter(|_| kind.states == 2) {
            let own = v.parts(given, 0, directions)?[d];
            let own = v.reshape(own, &[3 * hidden])?;
            peepholes = v.parts(own, 0, 3)?;
        }
        let activations = activations(v, kind, d)?;
        let own = Direction { recurrent, bias, peepholes, activations };
        let mut states = Vec::new();
        for first in &initial {
            states.push(v.reshape(first[d], &[batch, hidden])?);
        }
        let rows = v.parts(inputs, 0, steps)?;
        let mut order: Vec<usize> = (0..steps).collect();
        if direction == "reverse" || d == 1 {
            order.reverse();
        }
        let mut shown = vec![states[0]; steps];
        for t in order {
            let new = (kind.step)(v, &own, rows[t], &states)?;
            (shown[t], states) = match lengths {
                Some(lengths) => within(v, lengths, t, new, &states)?,
                None => (new[0], new),
            };
        }
        for y in &mut shown {
            *y = v.reshape(*y, &[1, 1, batch, hidden])?;
        }
        all.push(v.joined(&shown, 0)?);
        for (last, state) in last.iter_mut().zip(states) {
            last.push(v.reshape(state, &[1, batch, hidden])?);
        }
    }
    let mut y = v.joined(&all, 1)?;
    if batch_first {
        y = v.transpose(y, &[2, 0, 1, 3])?;
    }
    let mut outputs = vec![Some(y)];
    for last in last {
        let joined = v.joined(&last, 0)?;
        outputs.push(Some(swap(v, joined)?));
    }
    Ok(outputs)
}

/// What step `t` shows and the states after it where sequences have lengths: behind its end, a sequence shows zeros
/// and keeps its states.
fn within(
    v: &mut Translation<'_, '_>,
    lengths: ValueId,
    t: usize,
    new: Vec<ValueId>,
    old: &[ValueId],
) -> Result<(ValueId, Vec<ValueId>)> {
    let column = v.cast(lengths, DType::I64)?;
    let column = v.reshape(column, &[v.ty(lengths).elements(), 1])?;
    let inside = v.above(column, t as f64)?;
    let zero = v.number(0.0, new[0])?;
    let shown = v.select(inside, new[0], zero)?;
    let kept = new.into_iter().zip(old).map(|(new, old)| v.select(inside, new, *old));
    Ok((shown, kept.collect::<Result<_>>()?))
}

fn lstm_step(
    v: &mut Translation<'_, '_>,
    own: &Direction,
    x: ValueId,
    states: &[ValueId],
) -> Result<Vec<ValueId>> {
    let (h, c) = (states[0], states[1]);
    let [f, g, out] = &own.activations[..] else { return Err("has three activations".to_owned()) };
    let product = recurrent(v, own, h)?;
    let sum = v.add(x, product)?;
    let gates = v.parts(sum, 1, 4)?;
    let seen = |v: &mut Translation<'_, '_>, gate: ValueId, i: usize, c: ValueId| -> Result {
        let Some(&weight) = own.peepholes.get(i) else { return Ok(gate) };
        let part = v.mul(weight, c)?;
        v.add(gate, part)
    };
    let input = seen(v, gates[0], 0, c)?;
    let input = f.of(v, input)?;
    let forget = if v.int("input_forget", 0) != 0 {
        v.from(1.0, input)?
    } else {
        let forget = seen(v, gates[2], 2, c)?;
        f.of(v, forget)?
    };
    let candidate = g.of(v, gates[3])?;
    let (kept, added) = (v.mul(forget, c)?, v.mul(input, candidate)?);
    let cell = v.add(kept, added)?;
    let output = seen(v, gates[1], 1, cell)?;
    let output = f.of(v, output)?;
    let shown = out.of(v, cell)?;
    Ok(vec![v.mul(output, shown)?, cell])
}

fn gru_step(
    v: &mut Translation<'_, '_>,
    own: &Direction,
    x: ValueId,
    states: &[ValueId],
) -> Result<Vec<ValueId>> {
    let h = states[0];
    let [f, g] = &own.activations[..] else { return Err("has two activations".to_owned()) };
    let inputs = v.parts(x, 1, 3)?;
    let first = v.int("linear_before_reset", 0) != 0;
    // The products of the gates; that of the candidate is with the reset state, unless it comes first.
    let parts = if first {
        let product = recurrent(v, own, h)?;
        v.parts(product, 1, 3)?
    } else {
        let weights = v.parts(own.recurrent, 1, 3)?;
        let mut parts =
            vec![v.op(Op::MatMul, &[h, weights[0]])?, v.op(Op::MatMul, &[h, weights[1]])?];
        parts.push(weights[2]);
        if let Some(bias) = own.bias {
            let biases = v.parts(bias, 0, 3)?;
            parts[0] = v.add(parts[0], biases[0])?;
            parts[1] = v.add(parts[1], biases[1])?;
            parts.push(biases[2]);
        }
        parts
    };
    let (update, reset) = (v.add(inputs[0], parts[0])?, v.add(inputs[1], parts[1])?);
    let (update, reset) = (f.of(v, update)?, f.of(v, reset)?);
    let product = if first {
        v.mul(reset, parts[2])?
    } else {
        let kept = v.mul(reset, h)?;
        let product = v.op(Op::MatMul, &[kept, parts[2]])?;
        match parts.get(3) {
            Some(&bias) => v.add(product, bias)?,
            None => product,
        }
    };
    let candidate = v.add(inputs[2], product)?;
    let candidate = g.of(v, candidate)?;
    let share = v.from(1.0, update)?;
    let (new, old) = (v.mul(share, candidate)?, v.mul(update, h)?);
    Ok(vec![v.add(new, old)?])
}

fn rnn_step(
    v: &mut Translation<'_, '_>,
    own: &Direction,
    x: ValueId,
    states: &[ValueId],
) -> Result<Vec<ValueId>> {
    let product = recurrent(v, own, states[0])?;
    let sum = v.add(x, product)?;
    Ok(vec![own.activations[0].of(v, sum)?])
}

/// The state times the recurrent weights, plus their bias.
fn recurrent(v: &mut Translation<'_, '_>, own: &Direction, h: ValueId) -> Result {
    let product = v.op(Op::MatMul, &[h, own.recurrent])?;
    own.bias.map_or(Ok(product), |bias| v.add(product, bias))
}

/// The activations of direction `d`. Their parameters follow each other in lists of the node, for those functions
/// that have any.
fn activations(v: &Translation<'_, '_>, kind: &Kind, d: usize) -> Result<Vec<Activation>> {
    let n = kind.activations.len();
    let names: Vec<String> = match v.attrs.get("activations") {
        Some(Attr::Strs(names)) => names.clone(),
        _ => kind.activations.iter().cycle().take(2 * n).map(|s| (*s).to_owned()).collect(),
    };
    let list = |name: &str| match v.attrs.get(name) {
        Some(Attr::Floats(values)) => values.clone(),
        _ => Vec::new(),
    };
    let (mut alphas, mut betas) =
        (list("activation_alpha").into_iter(), list("activation_beta").into_iter());
    let mut all = Vec::new();
    for name in names {
        let name = name.to_lowercase();
        let (alpha, beta) = match name.as_str() {
            "leakyrelu" => (Some(0.01), None),
            "thresholdedrelu" | "elu" => (Some(1.0), None),
            "hardsigmoid" => (Some(0.2), Some(0.5)),
            "affine" | "scaledtanh" => (Some(1.0), Some(if name == "affine" { 0.0 } else { 1.0 })),
            _ => (None, None),
        };
        let alpha = alpha.map_or(0.0, |default| alphas.next().unwrap_or(default));
        let beta = beta.map_or(0.0, |default| betas.next().unwrap_or(default));
        all.push(Activation { name, alpha, beta });
    }
    let own = all.get(d * n..(d + 1) * n);
    own.map(<[Activation]>::to_vec).ok_or_else(|| format!("has {} activations", all.len()))
}

impl Activation {
    /// The activation of a value, which is limited before if the layer says so.
    fn of(&self, v: &mut Translation<'_, '_>, mut x: ValueId) -> Result {
        if let Some(Attr::Float(limit)) = v.attrs.get("clip").cloned() {
            let (low, high) = (v.number(f64::from(-limit), x)?, v.number(f64::from(limit), x)?);
            x = v.op(Op::Max, &[x, low])?;
            x = v.op(Op::Min, &[x, high])?;
        }
        let (alpha, beta) = (("alpha", Attr::Float(self.alpha)), ("beta", Attr::Float(self.beta)));
        match self.name.as_str() {
            "sigmoid" => v.op(Op::Sigmoid, &[x]),
            "tanh" => v.op(Op::Tanh, &[x]),
            "relu" => v.op(Op::Relu, &[x]),
            "softsign" => v.op(Op::Softsign, &[x]),
            "softplus" => v.op(Op::Softplus, &[x]),
            "leakyrelu" => v.op_with(Op::LeakyRelu, &[x], &[alpha]),
            "thresholdedrelu" => v.op_with(Op::ThresholdedRelu, &[x], &[alpha]),
            "elu" => v.op_with(Op::Elu, &[x], &[alpha]),
            "hardsigmoid" => v.op_with(Op::HardSigmoid, &[x], &[alpha, beta]),
            "affine" => {
                let scaled = v.scaled(x, self.alpha.into())?;
                v.shifted(scaled, self.beta.into())
            }
            "scaledtanh" => {
                let scaled = v.scaled(x, self.beta.into())?;
                let y = v.op(Op::Tanh, &[scaled])?;
                v.scaled(y, self.alpha.into())
            }
            other => Err(format!("the activation `{other}` is not known")),
        }
    }
}
