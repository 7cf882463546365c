//! Finds the operations of a draft that one loop computes.

use super::draft::{Draft, Operation, Virtual, Work};
use crate::exec::compound::{PATTERNS, Pattern, same};
use crate::exec::kernel::Kernel;
use crate::exec::program::Per;
use crate::host::pointwise::Function;
use pam_kernels::elementwise::Binary;
use pam_kernels::reduce::Reduction;
use smallvec::SmallVec;

/// A pattern that was found. The operation that it replaces has its operands: the first one's, then those of the
/// others that are not results of one before.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub pattern: &'static Pattern,
    /// The functions of its links.
    pub functions: [Option<Function>; 4],
}

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
                Some((Found { pattern, functions }, args))
            });
            if let Some((found, args)) = found {
                operations[i].work = Work::Compound(found);
                operations[i].args = args;
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
    ) -> Option<([Option<Function>; 4], Args)> {
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
                Some(Per::Element) => *second == Some(Per::Element),
                Some(_) => *second == Some(Per::Row),
                None => false,
            };
            let symmetric = matches!(kernel, Kernel::Binary(Binary::PaMul(_)));
            let from = match args[..] {
                [from] if second.is_none() && follows(&from) => from,
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
