//! Evaluation of constants.
//!
//! Shape arithmetic is exact: integers are computed in 128 bits and wrap to their type as numpy's
//! do. Floats are computed in double precision and rounded once, which for `+ − × ÷ √` is the
//! correctly rounded result of the narrower type. This is for constants when compiling; what runs a
//! step lives elsewhere and is fast.

mod indexing;
mod movement;
mod numbers;
mod pointwise;
mod reduce;
mod strided;

pub use numbers::cast;

use crate::attr::Attr;
use crate::op::{Call, Op, infer};
use crate::tensor::{Data, Tensor};
use crate::types::{DType, Type};

/// The outputs of a call whose inputs are known; `None` where they are not, or where the evaluator
/// does not know the op. `Shape` and `Size` need the types alone.
pub fn evaluate(call: &Call<'_>, inputs: &[Option<&Tensor>]) -> Option<Vec<Tensor>> {
    let types = (call.op.row().infer)(call).ok()?;
    let missing = |i: usize| call.get(i).is_some() && inputs.get(i).copied().flatten().is_none();
    if !matches!(call.op, Op::Shape | Op::Size) && (0..call.inputs.len()).any(missing) {
        return None;
    }
    let e = Eval { call, inputs, types: &types };
    let outputs = e.outputs()?;
    let fits = |(t, ty): (&Tensor, &Type)| t.shape() == ty.shape && t.dtype() == ty.dtype;
    outputs.iter().zip(&types).all(fits).then_some(outputs)
}

/// A call under evaluation.
struct Eval<'a> {
    call: &'a Call<'a>,
    inputs: &'a [Option<&'a Tensor>],
    types: &'a [Type],
}

impl<'a> Eval<'a> {
    fn input(&self, i: usize) -> Option<&'a Tensor> {
        self.inputs.get(i).copied().flatten()
    }

    fn outputs(&self) -> Option<Vec<Tensor>> {
        use Op::*;
        if self.call.op == Split {
            return self.split();
        }
        let one = match self.call.op {
            Identity => Some(self.input(0)?.clone()),
            Reshape | Flatten | Squeeze | Unsqueeze => {
                self.input(0)?.reshaped(self.types[0].shape.clone())
            }
            Shape | Size | ConstantOfShape | Range | EyeLike => self.source(),
            Transpose | Expand | Tile | Slice | Concat | Pad | Trilu => self.movement(),
            Gather | GatherElements | GatherND | ScatterElements | ScatterND | OneHot => {
                self.indexing()
            }
            ReduceSum | ReduceMax | ReduceMin | ReduceProd | ReduceMean | ReduceL1 | ArgMax
            | ArgMin | CumSum => self.reduction(),
            Cast | CastLike => cast(self.input(0)?, self.types[0].dtype),
            _ => self.pointwise(),
        };
        Some(vec![one?])
    }

    fn source(&self) -> Option<Tensor> {
        let ty = &self.types[0];
        match self.call.op {
            Op::Shape => {
                let shape = &self.call.get(0)?.shape;
                let (start, end) = infer::shape_range(self.call, shape.len());
                let dims = shape.get(start..end.max(start))?;
                Some(Tensor::vector(dims.iter().map(|&d| d as i64).collect::<Vec<_>>()))
            }
            Op::Size => Some(Tensor::scalar(self.call.get(0)?.elements() as i64)),
            Op::ConstantOfShape => match self.call.attr("value") {
                Some(Attr::Tensor(t)) => {
                    let data = t.data().pick(std::iter::repeat_n(0, ty.elements()));
                    Tensor::from_data(ty.shape.clone(), data)
                }
                _ => Some(Tensor::zeros(ty)),
            },
            Op::Range => {
                let number = |name: &str| match self.call.attr(name) {
                    Some(Attr::Tensor(t)) => numbers::Numbers::of(t).first(),
                    _ => None,
                };
                let (start, delta) = (number("start")?, number("delta")?);
                let n = ty.elements();
                numbers::Numbers::progression(start, delta, n).tensor(ty)
            }
            Op::EyeLike => {
                let k = self.call.int("k").unwrap_or(0);
                let width = ty.shape[1] as i64;
                let ones = (0..ty.elements() as i64)
                    .map(|i| i128::from(width > 0 && i % width == i / width + k))
                    .collect();
                numbers::Numbers::Int(ones).tensor(ty)
            }
            _ => None,
        }
    }
}

/// Whether evaluating a call when compiling saves a multiplication of floats at run time.
pub fn is_float_multiply(call: &Call<'_>, outputs: &[Type]) -> bool {
    let float = outputs.iter().any(|t| t.dtype.is_float());
    float && (call.op.row().count)(call, outputs) > 0
}

/// A tensor of these elements, where they fit the type.
fn tensor(ty: &Type, data: Data) -> Option<Tensor> {
    debug_assert_eq!(data.dtype(), ty.dtype);
    Tensor::from_data(ty.shape.clone(), data)
}

/// The element type's zero as data of one element.
fn zero(dtype: DType) -> Data {
    Data::zeros(dtype, 1)
}
