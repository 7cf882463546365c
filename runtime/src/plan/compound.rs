//! Finds the operations of a draft that one loop computes.

use super::draft::{Draft, Functions, Operation, Virtual, Work};
use crate::exec::compound::{PATTERNS, Pattern, Second, same};
use crate::exec::kernel::Kernel;
use crate::exec::program::Per;
use pam_kernels::elementwise::Binary;
use pam_kernels::reduce::Reduction;
use smallvec::SmallVec;

impl Draft {
    /// The operations, those merged of which nothing else needs what lies between them.
    pub(super) fn merged(&self, stored: impl Fn(Virtual) -> bool) -> Vec<Operation> {
        let mut operations = self.products_summed(&stored);
        if self.row == 1 {
            return operations;
        }
        let users = users(&operations);
        let inner = |v: Virtual| match v {
            Virtual::Result(p) => (users[p as usize] == 1 && !stored(v)).then_some(p as usize),
            Virtual::Operand(_) => None,
        };
        for i in 0..operations.len() {
            let found = PATTERNS.iter().find_map(|pattern| {
                let (functions, args) = self.links(&operations, pattern, i, &inner)?;
                Some((Work::Compound(pattern, functions), args))
            });
            if let Some((work, args)) = found {
                operations[i] = Operation { work, args, ..operations[i] };
            }
        }
        operations
    }

    /// The operations, but that sums of products take what is multiplied where nothing else needs the
    /// products.
    fn products_summed(&self, stored: &impl Fn(Virtual) -> bool) -> Vec<Operation> {
        let users = users(&self.operations);
        let mut operations = self.operations.clone();
        for i in 0..operations.len() {
            let (Work::Reduce(Reduction::Sum), &[Virtual::Result(p)]) =
                (operations[i].work, &operations[i].args[..])
            else {
                continue;
            };
            let Operation { work, args, .. } = &operations[p as usize];
            let sum = match work {
                Work::Compute(f) => Kernel::of(f).product().map(|p| Work::SumProducts(*f, p)),
                _ => None,
            };
            let whole = |v: &Virtual| self.format(*v).is_some_and(|f| f.per == Per::Element);
            let free = users[p as usize] == 1 && !stored(Virtual::Result(p));
            if let Some(work) = sum.filter(|_| free && args.iter().all(whole)) {
                operations[i] = Operation { work, args: args.clone(), ..operations[i] };
            }
        }
        operations
    }

    /// The functions of a pattern that ends with operation `end`, and its operands.
    fn links(
        &self,
        operations: &[Operation],
        pattern: &Pattern,
        end: usize,
        inner: &impl Fn(Virtual) -> Option<usize>,
    ) -> Option<(Functions, Args)> {
        let per =
            |v: &Virtual| self.format(*v).filter(|f| f.size == size_of::<f32>()).map(|f| f.per);
        let (mut functions, mut others) = ([None; 4], Args::new());
        let mut at = end;
        for (n, (kernel, second)) in pattern.links.iter().enumerate().rev() {
            let Operation { work: Work::Compute(function), args, .. } = &operations[at] else {
                return None;
            };
            if !same(kernel, &Kernel::of(function)) {
                return None;
            }
            functions[n] = Some(*function);
            let follows =
                |v: &Virtual| per(v) == Some(Per::Element) && (n == 0 || inner(*v).is_some());
            let fits = |v: &Virtual| match per(v) {
                Some(Per::Element) => *second == Second::Element,
                Some(_) => *second == Second::Row,
                None => false,
            };
            let symmetric = matches!(kernel, Kernel::Binary(Binary::PaMul(_)));
            let from = match args[..] {
                [from] if *second == Second::Missing && follows(&from) => from,
                [from, other] if follows(&from) && fits(&other) => {
                    others.push(other);
                    from
                }
                [other, from] if symmetric && follows(&from) && fits(&other) => {
                    others.push(other);
                    from
                }
                _ => return None,
            };
            if n > 0 {
                at = inner(from)?;
                continue;
            }
            others.push(from);
            others.reverse();
        }
        Some((functions, others))
    }
}

/// The operands of an operation.
type Args = SmallVec<[Virtual; 3]>;

/// How often each result is an operand.
fn users(operations: &[Operation]) -> Vec<u32> {
    let mut users = vec![0; operations.len()];
    for arg in operations.iter().flat_map(|o| &o.args) {
        if let Virtual::Result(i) = arg {
            users[*i as usize] += 1;
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::program::{Action, Compound, Format, Program, Reg};
    use crate::host::pointwise::{Function, Immediate};
    use crate::host::strided::Strided;
    use crate::plan::draft::Read;
    use pam_ir::graph::ValueId;
    use pam_ir::op::Op;
    use pam_ir::types::DType;

    /// What a program is made of: 3 rows of 5 elements.
    struct Sketch(Draft);

    impl Sketch {
        fn read(&mut self, root: u32, per: Per) -> Virtual {
            let (span, walk) = match per {
                Per::Element => (60, None),
                Per::Row => (12, None),
                Per::Program => (4, Some(Strided::new(&[15], &[0], 0))),
            };
            let format = Format { size: 4, per };
            self.0.read(Read { root: ValueId(root), offset: 0, format, span, walk })
        }

        fn op(&mut self, op: Op, args: &[Virtual]) -> Virtual {
            let (from, to) = (DType::F32, DType::F32);
            let imm = Immediate { int: 0, float: [0.0; 2] };
            self.0.operation(Function { op, from, to, imm }, args, Per::Element)
        }

        fn finish(mut self, stored: &[Virtual]) -> Program {
            let roots: Vec<ValueId> = (100..).map(ValueId).take(stored.len()).collect();
            roots.iter().zip(stored).for_each(|(root, v)| self.0.define(*root, *v));
            self.0.finish(&roots, &vec![None; stored.len()])
        }

        /// How many operations each action does.
        fn sizes(self, stored: &[Virtual]) -> Vec<usize> {
            let size = |action: &Action| match action {
                Action::Compound(compound) => compound.links.len(),
                _ => 1,
            };
            self.finish(stored).actions.iter().map(size).collect()
        }
    }

    /// The numerators of a softmax: every result, and what they are made from.
    fn exponentials(s: &mut Sketch, turned: bool) -> [Virtual; 4] {
        let (x, scale) = (s.read(0, Per::Element), s.read(1, Per::Program));
        let (bound, shift) = (s.read(2, Per::Row), s.read(3, Per::Row));
        let factors = if turned { [scale, x] } else { [x, scale] };
        let scaled = s.op(Op::PamMul, &factors);
        let bounded = s.op(Op::Max, &[scaled, bound]);
        let small = s.op(Op::Sub, &[bounded, shift]);
        [scaled, bounded, small, s.op(Op::PamExp2, &[small])]
    }

    fn sketch() -> Sketch {
        Sketch(Draft::new(15, 5))
    }

    #[test]
    fn chains_that_nobody_looks_into_are_one_loop() {
        for turned in [false, true] {
            let mut s = sketch();
            let [.., last] = exponentials(&mut s, turned);
            assert_eq!(s.sizes(&[last]), [4]);
        }
        for [div, mul] in [[Op::PamDiv, Op::PamMul], [Op::Div, Op::Mul]] {
            let mut s = sketch();
            let reads = [(0, Per::Element), (1, Per::Row), (2, Per::Element), (3, Per::Element)];
            let [x, deviation, scale, bias] = reads.map(|(root, per)| s.read(root, per));
            let normal = s.op(div, &[x, deviation]);
            let scaled = s.op(mul, &[normal, scale]);
            let shifted = s.op(Op::Add, &[scaled, bias]);
            assert_eq!(s.sizes(&[shifted]), [3]);
        }
        let mut s = sketch();
        let (x, max) = (s.read(0, Per::Element), s.read(1, Per::Row));
        let small = s.op(Op::Sub, &[x, max]);
        let exponential = s.op(Op::Exp, &[small]);
        assert_eq!(s.sizes(&[exponential]), [2]);
    }

    #[test]
    fn the_loop_of_exponentials_sums_them() {
        let mut s = sketch();
        let [.., last] = exponentials(&mut s, false);
        let sum = s.0.reduce(Reduction::Sum, last);
        let quotient = s.op(Op::PamDiv, &[last, sum]);
        let program = s.finish(&[quotient]);
        let [Action::Compound(compound), Action::Compute { args, to, .. }] = &program.actions[..]
        else {
            panic!("{:?}", program.actions);
        };
        assert_eq!(args[..2], [Some(compound.to), compound.sums]);
        // The exponentials lie where the quotients will.
        assert_eq!((compound.to, *to), (Reg::Out(0), Reg::Out(0)));
        // The sums are written while the operands are still read.
        let operands = compound.links.iter().filter_map(|(_, operand)| *operand);
        assert!(!operands.chain([compound.from]).any(|r| Some(r) == compound.sums));
        // Other reductions, and sums that are not needed, are not its.
        let mut s = sketch();
        let [.., last] = exponentials(&mut s, false);
        s.0.reduce(Reduction::Sum, last);
        let max = s.0.reduce(Reduction::Max, last);
        let program = s.finish(&[last, max]);
        assert!(matches!(
            &program.actions[..],
            [Action::Compound(Compound { sums: None, .. }), Action::Reduce { .. }]
        ));
    }

    #[test]
    fn what_else_needs_a_result_within_a_chain_gets_it() {
        for k in 0..3 {
            let mut s = sketch();
            let all = exponentials(&mut s, false);
            assert_eq!(s.sizes(&[all[3], all[k]]), [1; 4]);
            let mut s = sketch();
            let all = exponentials(&mut s, false);
            let other = s.op(Op::Neg, &[all[k]]);
            assert_eq!(s.sizes(&[all[3], other]), [1; 5]);
        }
    }

    #[test]
    fn operands_on_the_other_side_are_another_chain() {
        let mut s = sketch();
        let (x, max) = (s.read(0, Per::Element), s.read(1, Per::Row));
        let small = s.op(Op::Sub, &[max, x]);
        let exponential = s.op(Op::Exp, &[small]);
        assert_eq!(s.sizes(&[exponential]), [1, 1]);
    }
}
