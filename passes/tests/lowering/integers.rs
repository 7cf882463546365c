//! Integers are exact under PA: their products and quotients are those of the standard.

use super::{cases, compiled, eval, parsed};
use pam_ir::tensor::{Element, Tensor};
use pam_ir::types::DType;
use std::collections::BTreeMap;

/// A function of two integers of any size.
type Exact = fn(i128, i128) -> i128;

const OPS: [(&str, Exact); 4] = [
    ("Mul(a, b)", |a, b| a * b),
    ("Div(a, b)", |a, b| a / b),
    ("Mod(a, b)", |a, b| (a % b + b) % b),
    ("Mod(a, b) {fmod=1}", |a, b| a % b),
];

/// Numbers of all sizes and signs, cut to the type.
fn numbers() -> Vec<i64> {
    let mut numbers = vec![1, 2, 3, 7, 8, 100, 255, 1 << 20, i64::MAX, i64::MIN + 1];
    numbers.extend((1..40u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (i % 60)) as i64));
    numbers.iter().flat_map(|&x| [x, x.wrapping_neg()]).collect()
}

fn check<T: Element>(dtype: DType, cut: fn(i64) -> T)
where
    i128: From<T>,
{
    let pairs: Vec<(T, T)> = numbers()
        .iter()
        .flat_map(|&a| numbers().into_iter().step_by(3).map(move |b| (cut(a), cut(b))))
        .filter(|(_, b)| i128::from(*b) != 0)
        .collect();
    let n = pairs.len();
    let (a, b): (Vec<T>, Vec<T>) = pairs.iter().copied().unzip();
    let inputs =
        BTreeMap::from([("a", Tensor::new([n], a.clone())), ("b", Tensor::new([n], b.clone()))]);
    for (op, f) in OPS {
        let lines = format!("in a: {dtype}[{n}]\nin b: {dtype}[{n}]\ny: {dtype}[{n}] = {op}");
        let graph = parsed(op, &cases::graph(&lines));
        let outputs = eval::run(&compiled(op, &graph, "approx"), &inputs);
        let expected = a.iter().zip(&b).map(|(&a, &b)| cut(f(a.into(), b.into()) as i64));
        assert_eq!(outputs[0], Tensor::new([n], expected.collect::<Vec<T>>()), "{dtype} {op}");
    }
}

#[test]
fn integers_are_exact() {
    check(DType::I64, |x| x);
    check(DType::I32, |x| x as i32);
    check(DType::I8, |x| x as i8);
    check(DType::U8, |x| x as u8);
    check(DType::U32, |x| x as u32);
}

#[test]
fn constants_are_exact() {
    let numbers = numbers();
    let n = numbers.len();
    let inputs = BTreeMap::from([("a", Tensor::new([n], numbers.clone()))]);
    for c in [1i64, 2, 6, 8, 97, 1 << 40, -1, -8, -97] {
        for (op, f) in OPS {
            let lines = format!("in a: i64[{n}]\nconst b: i64[] = {c}\ny: i64[{n}] = {op}");
            let graph = parsed(op, &cases::graph(&lines));
            let outputs = eval::run(&compiled(op, &graph, "approx"), &inputs);
            let expected =
                numbers.iter().map(|&a| f(a.into(), c.into()) as i64).collect::<Vec<_>>();
            assert_eq!(outputs[0], Tensor::new([n], expected), "{op}, b = {c}");
        }
    }
}

#[test]
fn constant_powers_are_exact() {
    let numbers = numbers();
    let n = numbers.len();
    let inputs = BTreeMap::from([("a", Tensor::new([n], numbers.clone()))]);
    for c in [1u32, 2, 3, 7, 12] {
        let lines = format!("in a: i64[{n}]\nconst b: i64[] = {c}\ny: i64[{n}] = Pow(a, b)");
        let graph = parsed("Pow", &cases::graph(&lines));
        let outputs = eval::run(&compiled("Pow", &graph, "approx"), &inputs);
        let expected: Vec<i64> = numbers.iter().map(|a| a.wrapping_pow(c)).collect();
        assert_eq!(outputs[0], Tensor::new([n], expected), "b = {c}");
    }
}
