//! Optimizers, as PyTorch defines them.

use super::{hyper, number, settings, zeros};
use pam_ir::build::{BuildError, Builder};
use pam_ir::graph::{Binding, ValueId};
use pam_ir::op::Op;

/// An optimizer and its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum OptimizerSpec {
    /// Stochastic gradient descent, `torch.optim.SGD`.
    Sgd {
        /// Default of the input `lr`.
        lr: f64,
        /// Share of the last step's direction that is kept.
        momentum: f64,
        /// Share of the parameter that is added to its gradient.
        weight_decay: f64,
        /// Whether the momentum is applied ahead.
        nesterov: bool,
    },
    /// Adam with decoupled weight decay, `torch.optim.AdamW`.
    AdamW {
        /// Default of the input `lr`.
        lr: f64,
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squares.
        beta2: f64,
        /// What is added to the root.
        eps: f64,
        /// Share of the parameter, times lr, that is taken away in each step.
        weight_decay: f64,
    },
}

impl OptimizerSpec {
    /// Reads `sgd[:lr=…,momentum=…,weight_decay=…,nesterov=1]` or
    /// `adamw[:lr=…,beta1=…,beta2=…,eps=…,weight_decay=…]`; what is not given is as in PyTorch.
    ///
    /// # Errors
    /// Says which setting is wrong.
    pub fn parse(text: &str) -> Result<OptimizerSpec, String> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let mut given = settings(rest)?;
        let mut take = |name: &str, default: f64| {
            let at = given.iter().position(|(n, _)| *n == name);
            at.map_or(default, |i| given.remove(i).1)
        };
        let spec = match name {
            "sgd" => OptimizerSpec::Sgd {
                lr: take("lr", 1e-3),
                momentum: take("momentum", 0.0),
                weight_decay: take("weight_decay", 0.0),
                nesterov: take("nesterov", 0.0) != 0.0,
            },
            "adamw" => OptimizerSpec::AdamW {
                lr: take("lr", 1e-3),
                beta1: take("beta1", 0.9),
                beta2: take("beta2", 0.999),
                eps: take("eps", 1e-8),
                weight_decay: take("weight_decay", 1e-2),
            },
            _ => return Err(format!("no optimizer `{name}`; there are sgd and adamw")),
        };
        match given.first() {
            Some((setting, _)) => Err(format!("{name} has no setting `{setting}`")),
            None => spec.checked(),
        }
    }

    /// The ranges that PyTorch demands.
    fn checked(self) -> Result<OptimizerSpec, String> {
        let (positive, shares) = match self {
            OptimizerSpec::Sgd { momentum, nesterov: true, .. } if momentum <= 0.0 => {
                return Err("nesterov needs a momentum above 0".to_owned());
            }
            OptimizerSpec::Sgd { lr, momentum, weight_decay, .. } => {
                ([("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)], [].to_vec())
            }
            OptimizerSpec::AdamW { lr, beta1, beta2, eps, weight_decay } => (
                [("lr", lr), ("eps", eps), ("weight_decay", weight_decay)],
                [("beta1", beta1), ("beta2", beta2)].to_vec(),
            ),
        };
        if let Some((name, x)) = positive.into_iter().find(|(_, x)| *x < 0.0) {
            return Err(format!("`{name}` is {x}, but must not be negative"));
        }
        match shares.into_iter().find(|(_, x)| !(0.0..1.0).contains(x)) {
            Some((name, x)) => Err(format!("`{name}` is {x}, but must be at least 0 and below 1")),
            None => Ok(self),
        }
    }

    /// Appends the update of each parameter by its gradient; the bindings of new to old state.
    pub(super) fn append(
        &self,
        b: &mut Builder,
        pairs: &[(ValueId, ValueId)],
    ) -> Result<Vec<Binding>, BuildError> {
        let mut state = State { b, bindings: Vec::new() };
        match *self {
            OptimizerSpec::Sgd { lr, momentum, weight_decay, nesterov } => {
                let lr = hyper(state.b, "lr", lr as f32);
                for &(p, g) in pairs {
                    state.sgd(p, g, lr, [momentum, weight_decay], nesterov)?;
                }
            }
            OptimizerSpec::AdamW { lr, beta1, beta2, eps, weight_decay } => {
                let lr = hyper(state.b, "lr", lr as f32);
                let step = hyper(state.b, "step", 0.0);
                let one = number(state.b, 1.0);
                let next = state.b.node(Op::Add, &[step, one], &[])?;
                state.bind(step, next);
                // 1 − β^t, whose root for β₂, and the learning rates that follow.
                let mut corrected = |beta: f64| -> Result<ValueId, BuildError> {
                    let beta = number(state.b, beta);
                    let power = state.b.node(Op::Pow, &[beta, next], &[])?;
                    state.b.node(Op::Sub, &[one, power], &[])
                };
                let (c1, c2) = (corrected(beta1)?, corrected(beta2)?);
                let root = state.b.node(Op::Sqrt, &[c2], &[])?;
                let rate = state.b.node(Op::Div, &[lr, c1], &[])?;
                let decay = number(state.b, weight_decay);
                let shrink = state.b.node(Op::Mul, &[lr, decay], &[])?;
                let keep = state.b.node(Op::Sub, &[one, shrink], &[])?;
                for &(p, g) in pairs {
                    state.adamw(p, g, [rate, root, keep], [beta1, beta2, eps])?;
                }
            }
        }
        Ok(state.bindings)
    }
}

/// The builder and the state that has been bound.
struct State<'b> {
    b: &'b mut Builder,
    bindings: Vec<Binding>,
}

impl State<'_> {
    /// Makes a value the next one of an input.
    fn bind(&mut self, old: ValueId, new: ValueId) {
        let binding = super::bind(self.b, old, new);
        self.bindings.push(binding);
    }

    /// State of a parameter that begins as zeros.
    fn state(&mut self, p: ValueId, suffix: &str) -> ValueId {
        let name = format!("{}.{suffix}", self.b.graph().value(p).name);
        let (ty, zeros) = (self.b.ty(p).clone(), zeros(self.b, p));
        self.b.input(&name, ty, zeros)
    }

    fn op(&mut self, op: Op, a: ValueId, b: ValueId) -> Result<ValueId, BuildError> {
        self.b.node(op, &[a, b], &[])
    }

    fn scaled(&mut self, x: ValueId, c: f64) -> Result<ValueId, BuildError> {
        let c = number(self.b, c);
        self.op(Op::Mul, x, c)
    }

    /// `g += decay · p; m = momentum · m + g; p −= lr · m`, with Nesterov `p −= lr · (g + momentum · m)`.
    fn sgd(
        &mut self,
        p: ValueId,
        mut g: ValueId,
        lr: ValueId,
        [momentum, decay]: [f64; 2],
        nesterov: bool,
    ) -> Result<(), BuildError> {
        if decay != 0.0 {
            let pull = self.scaled(p, decay)?;
            g = self.op(Op::Add, g, pull)?;
        }
        let mut direction = g;
        let mut kept = None;
        if momentum != 0.0 {
            let old = self.state(p, "momentum_buffer");
            let before = self.scaled(old, momentum)?;
            let new = self.op(Op::Add, before, g)?;
            direction = new;
            if nesterov {
                let ahead = self.scaled(new, momentum)?;
                direction = self.op(Op::Add, g, ahead)?;
            }
            kept = Some((old, new));
        }
        let step = self.op(Op::Mul, direction, lr)?;
        let new = self.op(Op::Sub, p, step)?;
        self.bind(p, new);
        if let Some((old, new)) = kept {
            self.bind(old, new);
        }
        Ok(())
    }

    /// `m += (1 − β₁)(g − m); v = β₂ v + (1 − β₂) g²; p = keep · p − rate · m / (√v / root + ε)`.
    fn adamw(
        &mut self,
        p: ValueId,
        g: ValueId,
        [rate, root, keep]: [ValueId; 3],
        [beta1, beta2, eps]: [f64; 3],
    ) -> Result<(), BuildError> {
        let (m, v) = (self.state(p, "exp_avg"), self.state(p, "exp_avg_sq"));
        let gap = self.op(Op::Sub, g, m)?;
        let move_by = self.scaled(gap, 1.0 - beta1)?;
        let new_m = self.op(Op::Add, m, move_by)?;
        let square = self.op(Op::Mul, g, g)?;
        let share = self.scaled(square, 1.0 - beta2)?;
        let kept = self.scaled(v, beta2)?;
        let new_v = self.op(Op::Add, kept, share)?;
        let size = self.b.node(Op::Sqrt, &[new_v], &[])?;
        let size = self.op(Op::Div, size, root)?;
        let eps = number(self.b, eps);
        let size = self.op(Op::Add, size, eps)?;
        let direction = self.op(Op::Div, new_m, size)?;
        let step = self.op(Op::Mul, rate, direction)?;
        let shrunk = self.op(Op::Mul, p, keep)?;
        let new = self.op(Op::Sub, shrunk, step)?;
        self.bind(p, new);
        self.bind(m, new_m);
        self.bind(v, new_v);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading() {
        let text = "sgd:lr=0.1,momentum=0.9,nesterov=1";
        let sgd = OptimizerSpec::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.0, nesterov: true };
        assert_eq!(OptimizerSpec::parse(text), Ok(sgd));
        assert!(OptimizerSpec::parse("adamw:weight_decay=0.05").is_ok());
        for bad in ["adam", "sgd:beta1=0.9", "sgd:lr", "sgd:lr=x", "sgd:lr=inf"] {
            assert!(OptimizerSpec::parse(bad).is_err(), "{bad}");
        }
    }
}
