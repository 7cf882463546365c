//! Each op against values computed by hand.

mod common;
use common::{f, floats, i, ints, run};
use pam_ir::tensor::Tensor;

const NAN: f32 = f32::NAN;

#[test]
fn elementwise_with_broadcasting() {
    let y = run(
        "in x: f32[2,3]\n in b: f32[3]\n in c: f32[2,1]\n const s: f32[] = 0.5\n
         y: f32[2,3] = Add(x, b)\n z: f32[2,3] = Sub(y, c)\n w: f32[2,3] = Max(z, s)\n
         out y = y\n out w = w",
        &[
            ("x", f(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, NAN])),
            ("b", f(&[3], &[10.0, 20.0, 30.0])),
            ("c", f(&[2, 1], &[10.0, 100.0])),
        ],
    );
    assert_eq!(floats(&y[0])[..5], [10.0, 21.0, 32.0, 13.0, 24.0]);
    assert_eq!(floats(&y[1])[..5], [0.5, 11.0, 22.0, 0.5, 0.5]);
    assert!(floats(&y[0])[5].is_nan() && floats(&y[1])[5].is_nan());
}

#[test]
fn products_of_nothing() {
    let y = run(
        "in x: f32[0,3]\n in d: f32[0,5]\n t: f32[3,0] = Transpose(x) {perm=[1, 0]}\n
         a: f32[3,5] = MatMul(t, d)\n u: f32[5,0] = Transpose(d) {perm=[1, 0]}\n
         b: f32[5,3] = PamMatMul(u, x)\n out a = a\n out b = b",
        &[("x", f(&[0, 3], &[])), ("d", f(&[0, 5], &[]))],
    );
    assert_eq!((floats(&y[0]), floats(&y[1])), (&[0.0; 15][..], &[0.0; 15][..]));
}

#[test]
fn comparisons_selections_and_casts() {
    let y = run(
        "in x: f32[4]\n const z: f32[] = 0.0\n
         p: bool[4] = Greater(x, z)\n n: bool[4] = Not(p)\n w: f32[4] = Where(n, z, x)\n
         c: f32[4] = Cast(p) {to=f32}\n k: i64[4] = Cast(x) {to=i64}\n q: bool[4] = IsInf(x)\n
         out w = w\n out c = c\n out k = k\n out q = q",
        &[("x", f(&[4], &[-1.5, 2.5, f32::INFINITY, -0.0]))],
    );
    assert_eq!(floats(&y[0]), [0.0, 2.5, f32::INFINITY, 0.0]);
    assert_eq!(floats(&y[1]), [0.0, 1.0, 1.0, 0.0]);
    assert_eq!(ints(&y[2]), [-1, 2, i64::MAX, 0]);
    assert_eq!(y[3], Tensor::vector(vec![false, false, true, false]));
}

#[test]
fn variadic_and_clip() {
    let y = run(
        "in a: f32[3]\n in b: f32[1]\n in c: f32[3]\n const lo: f32[] = 1.0\n const hi: f32[] = 4.0\n
         s: f32[3] = Sum(a, b, c)\n m: f32[3] = Min(a, b, c)\n k: f32[3] = Clip(s, lo, hi)\n
         l: f32[3] = Clip(s, _, hi)\n o: f32[3] = Max(a)\n
         out s = s\n out m = m\n out k = k\n out l = l\n out o = o",
        &[
            ("a", f(&[3], &[1.0, -2.0, 3.0])),
            ("b", f(&[1], &[1.0])),
            ("c", f(&[3], &[0.0, -5.0, NAN])),
        ],
    );
    assert_eq!(floats(&y[0])[..2], [2.0, -6.0]);
    assert_eq!(floats(&y[1])[..2], [0.0, -5.0]);
    assert_eq!(floats(&y[2])[..2], [2.0, 1.0]);
    assert_eq!(floats(&y[3])[..2], [2.0, -6.0]);
    assert_eq!(floats(&y[4]), [1.0, -2.0, 3.0]);
    assert!((0..4).all(|k| floats(&y[k])[2].is_nan()));
}

#[test]
fn movements() {
    let y = run(
        "in x: f32[2,3]\n
         t: f32[3,2] = Transpose(x)\n e: f32[2,2,3] = Expand(x) {shape=[2,1,3]}\n
         k: f32[2,6] = Tile(x) {repeats=[1,2]}\n r: f32[2,2] = Slice(x) {starts=[-1],ends=[0],axes=[1],steps=[-1]}\n
         a: f32[2,1], b: f32[2,2] = Split(x) {axis=1,split=[1,2]}\n c: f32[2,5] = Concat(x, b) {axis=1}\n
         v: f32[3,2] = Reshape(x) {shape=[3,2]}\n n: f32[3,2] = Neg(v)\n d: f32[1,3] = Slice(x) {starts=[1],ends=[2],axes=[0]}\n
         out t = t\n out e = e\n out k = k\n out r = r\n out a = a\n out b = b\n out c = c\n out n = n\n out d = d",
        &[("x", f(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))],
    );
    assert_eq!(floats(&y[0]), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(floats(&y[1]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(floats(&y[2]), [0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 3.0, 4.0, 5.0]);
    assert_eq!(floats(&y[3]), [2.0, 1.0, 5.0, 4.0]);
    assert_eq!(floats(&y[4]), [0.0, 3.0]);
    assert_eq!(floats(&y[5]), [1.0, 2.0, 4.0, 5.0]);
    assert_eq!(floats(&y[6]), [0.0, 1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 5.0, 4.0, 5.0]);
    assert_eq!(floats(&y[7]), [-0.0, -1.0, -2.0, -3.0, -4.0, -5.0]);
    assert_eq!(floats(&y[8]), [3.0, 4.0, 5.0]);
}

#[test]
fn space_and_depth() {
    let x: Vec<f32> = (0..16).map(|v| v as f32).collect();
    let y = run(
        "in x: f32[1,4,2,2]\n d: f32[1,1,4,4] = DepthToSpace(x) {blocksize=2}\n
         s: f32[1,4,2,2] = SpaceToDepth(d) {blocksize=2}\n
         in c: f32[1,8,1,1]\n e: f32[1,2,2,2] = DepthToSpace(c) {blocksize=2,mode=\"CRD\"}\n
         out d = d\n out s = s\n out e = e",
        &[("x", f(&[1, 4, 2, 2], &x)), ("c", f(&[1, 8, 1, 1], &x[..8]))],
    );
    let blocks = [0., 4., 1., 5., 8., 12., 9., 13., 2., 6., 3., 7., 10., 14., 11., 15.];
    assert_eq!(floats(&y[0]), blocks);
    assert_eq!(floats(&y[1]), x);
    assert_eq!(floats(&y[2]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
}

#[test]
fn padding_and_triangles() {
    let y = run(
        "in x: f32[2,3]\n const v: f32[] = 9.0\n
         p: f32[3,4] = Pad(x, v) {pads=[1,0,0,1]}\n q: f32[2,5] = Pad(x) {pads=[0,1,0,1],mode=\"reflect\"}\n
         e: f32[2,5] = Pad(x) {pads=[0,1,0,1],mode=\"edge\"}\n w: f32[2,5] = Pad(x) {pads=[0,1,0,1],mode=\"wrap\"}\n
         u: f32[2,3] = Trilu(x) {k=1}\n l: f32[2,3] = Trilu(x) {upper=0}\n c: f32[2,1] = CenterCropPad(x) {shape=[2,1]}\n
         out p = p\n out q = q\n out e = e\n out w = w\n out u = u\n out l = l\n out c = c",
        &[("x", f(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))],
    );
    assert_eq!(floats(&y[0]), [9., 9., 9., 9., 1., 2., 3., 9., 4., 5., 6., 9.]);
    assert_eq!(floats(&y[1]), [2., 1., 2., 3., 2., 5., 4., 5., 6., 5.]);
    assert_eq!(floats(&y[2]), [1., 1., 2., 3., 3., 4., 4., 5., 6., 6.]);
    assert_eq!(floats(&y[3]), [3., 1., 2., 3., 1., 6., 4., 5., 6., 4.]);
    assert_eq!(floats(&y[4]), [0., 2., 3., 0., 0., 6.]);
    assert_eq!(floats(&y[5]), [1., 0., 0., 4., 5., 0.]);
    assert_eq!(floats(&y[6]), [2., 5.]);
}

#[test]
fn gathers() {
    let y = run(
        "in x: f32[3,2]\n in k: i64[2]\n in e: i64[1,2]\n in n: i64[2,2]\n
         g: f32[2,2] = Gather(x, k)\n h: f32[3,2] = Gather(x, k) {axis=1}\n
         a: f32[1,2] = GatherElements(x, e)\n b: f32[2] = GatherND(x, n)\n
         out g = g\n out h = h\n out a = a\n out b = b",
        &[
            ("x", f(&[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
            ("k", i(&[2], &[-1, 0])),
            ("e", i(&[1, 2], &[2, -2])),
            ("n", i(&[2, 2], &[0, 1, 2, 0])),
        ],
    );
    assert_eq!(floats(&y[0]), [4.0, 5.0, 0.0, 1.0]);
    assert_eq!(floats(&y[1]), [1.0, 0.0, 3.0, 2.0, 5.0, 4.0]);
    assert_eq!(floats(&y[2]), [4.0, 3.0]);
    assert_eq!(floats(&y[3]), [1.0, 4.0]);
}

#[test]
fn scatters_and_one_hot() {
    let y = run(
        "in x: f32[3,2]\n in e: i64[2,2]\n in u: f32[2,2]\n in n: i64[2,1]\n
         a: f32[3,2] = ScatterElements(x, e, u) {reduction=\"add\"}\n b: f32[3,2] = ScatterElements(x, e, u) {axis=1}\n
         c: f32[3,2] = ScatterND(x, n, u) {reduction=\"add\"}\n
         const v: f32[2] = [-1.0, 1.0]\n in l: i64[3]\n o: f32[3,2] = OneHot(l, v) {depth=2}\n
         out a = a\n out b = b\n out c = c\n out o = o",
        &[
            ("x", f(&[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
            ("e", i(&[2, 2], &[0, 1, 0, 1])),
            ("u", f(&[2, 2], &[10.0, 20.0, 30.0, 40.0])),
            ("n", i(&[2, 1], &[2, -1])),
            ("l", i(&[3], &[1, -2, 7])),
        ],
    );
    assert_eq!(floats(&y[0]), [40.0, 1.0, 2.0, 63.0, 4.0, 5.0]);
    assert_eq!(floats(&y[1]), [10.0, 20.0, 30.0, 40.0, 4.0, 5.0]);
    assert_eq!(floats(&y[2]), [0.0, 1.0, 2.0, 3.0, 44.0, 65.0]);
    assert_eq!(floats(&y[3]), [-1.0, 1.0, 1.0, -1.0, -1.0, -1.0]);
}

#[test]
fn reductions() {
    let y = run(
        "in x: f32[2,3,2]\n
         a: f32[2,1,2] = ReduceSum(x) {axes=[1]}\n b: f32[] = ReduceSum(x) {keepdims=0}\n
         c: f32[3] = ReduceMax(x) {axes=[0,2],keepdims=0}\n d: f32[2,3] = ReduceMin(x) {axes=[-1],keepdims=0}\n
         ab: f32[2,3,2] = Abs(x)\n e: f32[3] = ReduceSum(ab) {axes=[0,2],keepdims=0}\n g: f32[2,3,1] = GlobalMaxPool(x)\n
         m: i64[2,2] = ArgMax(x) {axis=1,keepdims=0}\n n: i64[2,2] = ArgMin(x) {axis=1,keepdims=0,select_last_index=1}\n
         out a = a\n out b = b\n out c = c\n out d = d\n out e = e\n out g = g\n out m = m\n out n = n",
        &[("x", f(&[2, 3, 2], &[0., -1., 2., 3., -4., 5., 1., 1., 1., 1., 1., 1.]))],
    );
    assert_eq!(floats(&y[0]), [-2.0, 7.0, 3.0, 3.0]);
    assert_eq!(floats(&y[1]), [11.0]);
    assert_eq!(floats(&y[2]), [1.0, 3.0, 5.0]);
    assert_eq!(floats(&y[3]), [-1.0, 2.0, -4.0, 1.0, 1.0, 1.0]);
    assert_eq!(floats(&y[4]), [3.0, 7.0, 11.0]);
    assert_eq!(floats(&y[5]), [0.0, 3.0, 5.0, 1.0, 1.0, 1.0]);
    assert_eq!(ints(&y[6]), [1, 2, 0, 0]);
    assert_eq!(ints(&y[7]), [2, 0, 2, 2]);
}

#[test]
fn along_an_axis() {
    let y = run(
        "in x: f32[2,4]\n
         c: f32[2,4] = CumSum(x) {axis=1}\n d: f32[2,4] = CumSum(x) {axis=1,exclusive=1,reverse=1}\n
         v: f32[2,2], k: i64[2,2] = TopK(x) {K=2}\n _, l: i64[1,4] = TopK(x) {K=1,axis=0,largest=0}\n
         h: f32[2,4] = Hardmax(x)\n in n: i64[2]\n r: f32[2,4] = ReverseSequence(x, n) {batch_axis=0,time_axis=1}\n
         out c = c\n out d = d\n out v = v\n out k = k\n out l = l\n out h = h\n out r = r",
        &[
            ("x", f(&[2, 4], &[1., 3., 3., 2., 0., 5., -1., 4.])),
            ("n", i(&[2], &[3, 1])),
        ],
    );
    assert_eq!(floats(&y[0]), [1., 4., 7., 9., 0., 5., 4., 8.]);
    assert_eq!(floats(&y[1]), [8., 5., 2., 0., 8., 3., 4., 0.]);
    assert_eq!(floats(&y[2]), [3., 3., 5., 4.]);
    assert_eq!(ints(&y[3]), [1, 2, 1, 3]);
    assert_eq!(ints(&y[4]), [1, 0, 1, 0]);
    assert_eq!(floats(&y[5]), [0., 1., 0., 0., 0., 1., 0., 0.]);
    assert_eq!(floats(&y[6]), [3., 3., 1., 2., 0., 5., -1., 4.]);
}

#[test]
fn windows() {
    let x: Vec<f32> = (0..16).map(|v| v as f32).collect();
    let y = run(
        "in x: f32[1,1,4,4]\n
         p: f32[1,1,2,2], k: i64[1,1,2,2] = MaxPool(x) {kernel_shape=[2,2],strides=[2,2]}\n
         q: f32[1,1,2,2] = MaxPool(x) {kernel_shape=[3,3],strides=[2,2],pads=[1,1,0,0]}\n
         u: f32[1,1,4,4] = MaxUnpool(p, k) {kernel_shape=[2,2],strides=[2,2]}\n
         in c: f32[1,4,4]\n i: f32[1,1,3,3] = Col2Im(c) {image_shape=[3,3],block_shape=[2,2]}\n
         out p = p\n out k = k\n out q = q\n out u = u\n out i = i",
        &[("x", f(&[1, 1, 4, 4], &x)), ("c", f(&[1, 4, 4], &[1.0; 16]))],
    );
    assert_eq!(floats(&y[0]), [5., 7., 13., 15.]);
    assert_eq!(ints(&y[1]), [5, 7, 13, 15]);
    assert_eq!(floats(&y[2]), [5., 7., 13., 15.]);
    assert_eq!(floats(&y[3])[4..8], [0., 5., 0., 7.]);
    assert_eq!(floats(&y[4]), [1., 2., 1., 2., 4., 2., 1., 2., 1.]);
}

#[test]
fn what_is_known_when_planning() {
    let y = run(
        "in x: f32[2,3]\n s: i64[2] = Shape(x)\n n: i64[] = Size(x)\n
         c: f32[2,2] = ConstantOfShape() {input=[2,2]}\n e: f32[2,3] = EyeLike(x) {k=1}\n
         d: f32[2,3] = Add(x, e)\n
         out s = s\n out n = n\n out e = e\n out d = d",
        &[("x", f(&[2, 3], &[1.0; 6]))],
    );
    assert_eq!(ints(&y[0]), [2, 3]);
    assert_eq!(ints(&y[1]), [6]);
    assert_eq!(floats(&y[2]), [0., 1., 0., 0., 0., 1.]);
    assert_eq!(floats(&y[3]), [1., 2., 1., 1., 1., 2.]);
}

#[test]
fn integers_and_halves() {
    let y = run(
        "in a: i64[3]\n in b: i64[3]\n m: i64[3] = Mul(a, b)\n d: i64[3] = Div(a, b)\n
         s: i64[3] = Sub(m, d)\n h: f16[3] = Cast(s) {to=f16}\n t: f16[3] = Add(h, h)\n
         w: f64[3] = Cast(t) {to=f64}\n e: f64[3] = Exp(w)\n r: f32[3] = Cast(e) {to=f32}\n
         out s = s\n out r = r",
        &[("a", i(&[3], &[-7, 1, 0])), ("b", i(&[3], &[2, 1, 5]))],
    );
    assert_eq!(ints(&y[0]), [-11, 0, 0]);
    assert_eq!(floats(&y[1])[1..], [1.0, 1.0]);
    assert!((floats(&y[1])[0] - (-22f32).exp()).abs() < 1e-15);
}

/// Corners where the standard leaves no choice.
#[test]
fn signs_of_zeros_and_numbers_that_are_none() {
    let bits = |t: &Tensor| floats(t).iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    let y = run(
        "in x: f32[4]\n s: f32[4] = Sign(x)\n k: f32[4] = Shrink(x) {bias=0.25,lambd=0.5}\n
         d: f64[4] = Cast(x) {to=f64}\n e: f64[4] = Sign(d)\n f: f32[4] = Cast(e) {to=f32}\n
         out s = s\n out k = k\n out f = f",
        &[("x", f(&[4], &[-0.0, -1e-40, NAN, 0.75]))],
    );
    assert_eq!(bits(&y[0])[..2], [0, (-1f32).to_bits()]);
    assert_eq!(bits(&y[2])[..2], [0, (-1f32).to_bits()]);
    assert!(floats(&y[0])[2].is_nan() && floats(&y[2])[2].is_nan());
    assert_eq!(bits(&y[1]), [0, 0, 0, 0.5f32.to_bits()]);
}
