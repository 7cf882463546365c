//! One graph for each rule and each of its notable forms.

/// Ops of one float operand: the op and its attributes.
const UNARY: &[(&str, &str)] = &[
    ("Exp", ""),
    ("Log", ""),
    ("Sqrt", ""),
    ("Reciprocal", ""),
    ("Tanh", ""),
    ("Sigmoid", ""),
    ("Erf", ""),
    ("Sin", ""),
    ("Cos", ""),
    ("Tan", ""),
    ("Asin", ""),
    ("Acos", ""),
    ("Atan", ""),
    ("Sinh", ""),
    ("Cosh", ""),
    ("Asinh", ""),
    ("Acosh", ""),
    ("Atanh", ""),
    ("Softplus", ""),
    ("Softsign", ""),
    ("Gelu", ""),
    ("Gelu", "approximate=\"tanh\""),
    ("Elu", "alpha=0.75"),
    ("Selu", ""),
    ("Celu", "alpha=2.0"),
    ("LeakyRelu", "alpha=0.1"),
    ("HardSigmoid", ""),
    ("HardSwish", ""),
    ("Swish", ""),
    ("Swish", "alpha=1.702"),
    ("Mish", ""),
    ("Bernoulli", "seed=1.0"),
    ("RandomNormalLike", "mean=1.0, scale=0.02"),
    ("RandomUniformLike", "low=-1.0"),
];

/// The rest: a name and the lines of a graph.
const OTHERS: &[(&str, &str)] = &[
    ("mul", "in a: f32[2,3]\nin b: f32[3]\ny: f32[2,3] = Mul(a, b)"),
    ("mul by 4", "in a: f32[2]\nconst c: f32[] = 4.0\ny: f32[2] = Mul(a, c)"),
    ("mul by -0.5", "in a: f32[2]\nconst c: f32[2] = [-0.5, -0.5]\ny: f32[2] = Mul(c, a)"),
    ("mul by 3", "in a: f32[2]\nconst c: f32[] = 3.0\ny: f32[2] = Mul(a, c)"),
    ("mul in half precision", "in a: f16[2]\nin b: f16[2]\ny: f16[2] = Mul(a, b)"),
    ("mul of integers", "in a: i64[2]\nconst c: i64[] = -6\ny: i64[2] = Mul(a, c)"),
    (
        "mul by a truth value",
        "in a: i64[2,3]\nin m: bool[3]\nt: i64[3] = Cast(m) {to=i64}\ny: i64[2,3] = Mul(a, t)",
    ),
    ("mul of masks", "in a: u8[2,3]\nin m: u8[3]\ny: u8[2,3] = Mul(a, m)"),
    ("div of integers by 8", "in a: i64[2]\nconst c: i64[] = 8\ny: i64[2] = Div(a, c)"),
    ("mod of integers by 8", "in a: i64[2]\nconst c: i64[] = 8\ny: i64[2] = Mod(a, c)"),
    (
        "div of indices",
        "in x: f32[4]\nconst c: i64[] = 3\ni: i64[1] = ArgMax(x) {axis=0}\ny: i64[1] = Div(i, c)",
    ),
    ("div", "in a: f32[2]\nin b: f32[2]\ny: f32[2] = Div(a, b)"),
    ("div by 8", "in a: f32[2]\nconst c: f32[] = 8.0\ny: f32[2] = Div(a, c)"),
    ("mod", "in a: f32[2]\nin b: f32[2]\ny: f32[2] = Mod(a, b)"),
    ("mod of C", "in a: f32[2]\nin b: f32[2]\ny: f32[2] = Mod(a, b) {fmod=1}"),
    ("pow", "in a: f32[2]\nin b: f32[2]\ny: f32[2] = Pow(a, b)"),
    ("pow of a constant", "const a: f32[] = 0.9\nin b: f32[]\ny: f32[] = Pow(a, b)"),
    ("pow 0", "in a: f32[2]\nconst c: f32[] = 0.0\ny: f32[2] = Pow(a, c)"),
    ("pow 1", "in a: f32[2]\nconst c: f32[] = 1.0\ny: f32[2] = Pow(a, c)"),
    ("pow 2", "in a: f32[2]\nconst c: i64[] = 2\ny: f32[2] = Pow(a, c)"),
    ("pow 3", "in a: f32[2]\nconst c: f32[] = 3.0\ny: f32[2] = Pow(a, c)"),
    ("pow 0.5", "in a: f32[2]\nconst c: f32[] = 0.5\ny: f32[2] = Pow(a, c)"),
    ("pow -1", "in a: f32[2]\nconst c: f32[] = -1.0\ny: f32[2] = Pow(a, c)"),
    ("pow -0.5", "in a: f32[2]\nconst c: f32[] = -0.5\ny: f32[2] = Pow(a, c)"),
    ("pow -2", "in a: f32[2]\nconst c: f32[] = -2.0\ny: f32[2] = Pow(a, c)"),
    ("pow 1.5", "in a: f32[2]\nconst c: f32[] = 1.5\ny: f32[2] = Pow(a, c)"),
    ("pow 4", "in a: f32[2]\nconst c: f32[] = 4.0\ny: f32[2] = Pow(a, c)"),
    ("pow 5", "in a: f32[2]\nconst c: f32[] = 5.0\ny: f32[2] = Pow(a, c)"),
    ("prelu", "in x: f32[2,3]\nin s: f32[3]\ny: f32[2,3] = PRelu(x, s)"),
    ("matmul of nothing", "in a: f32[5,2,0]\nin b: f32[0]\ny: f32[5,2] = MatMul(a, b)"),
    ("matmul", "in a: f32[5,2,3]\nin b: f32[3,4]\ny: f32[5,2,4] = MatMul(a, b)"),
    ("gemm", "in a: f32[2,3]\nin b: f32[3,4]\nin c: f32[4]\ny: f32[2,4] = Gemm(a, b, c)"),
    (
        "gemm scaled",
        "in a: f32[3,2]\nin b: f32[4,3]\nin c: f32[4]\n\
         y: f32[2,4] = Gemm(a, b, c) {alpha=0.3, beta=0.5, transA=1, transB=1}",
    ),
    (
        "conv",
        "in x: f32[1,4,5,5]\nin w: f32[6,2,3,3]\nin b: f32[6]\n\
         y: f32[1,6,3,3] = Conv(x, w, b) {auto_pad=\"SAME_UPPER\", group=2, strides=[2, 2]}",
    ),
    (
        "conv_transpose",
        "in x: f32[1,2,3,3]\nin w: f32[2,3,2,2]\n\
         y: f32[1,3,6,6] = ConvTranspose(x, w) {strides=[2, 2]}",
    ),
    (
        "conv_transpose in groups",
        "in x: f32[1,4,3]\nin w: f32[4,1,3]\n\
         y: f32[1,2,6] = ConvTranspose(x, w) \
         {group=2, output_padding=[1], pads=[1, 1], strides=[2]}",
    ),
    (
        "einsum",
        "in a: f32[2,3,4]\nin b: f32[5,4]\n\
         y: f32[3,2,5] = Einsum(a, b) {equation=\"bik,jk->ibj\"}",
    ),
    ("einsum of a diagonal", "in a: f32[2,3,3]\ny: f32[2] = Einsum(a) {equation=\"bii->b\"}"),
    ("softmax", "in x: f32[2,3]\ny: f32[2,3] = Softmax(x) {axis=1}"),
    ("log_softmax", "in x: f32[2,3]\ny: f32[2,3] = LogSoftmax(x) {axis=-1}"),
    (
        "layer_norm",
        "in x: f32[2,8]\nin w: f32[8]\nin b: f32[8]\n\
         y: f32[2,8], _, s: f32[2,1] = LayerNormalization(x, w, b) {epsilon=1e-6}",
    ),
    ("rms_norm", "in x: f32[2,8]\nin w: f32[8]\ny: f32[2,8] = RMSNormalization(x, w)"),
    (
        "batch_norm in training",
        "in x: f32[2,3,2]\nin w: f32[3]\nin b: f32[3]\nin m: f32[3]\nin v: f32[3]\n\
         y: f32[2,3,2], n: f32[3], u: f32[3] = BatchNormalization(x, w, b, m, v) \
         {momentum=0.75, training_mode=1}",
    ),
    (
        "batch_norm",
        "in x: f32[2,3,2]\nin w: f32[3]\nin b: f32[3]\nin m: f32[3]\nin v: f32[3]\n\
         y: f32[2,3,2] = BatchNormalization(x, w, b, m, v)",
    ),
    (
        "instance_norm",
        "in x: f32[2,3,4]\nin w: f32[3]\nin b: f32[3]\n\
         y: f32[2,3,4] = InstanceNormalization(x, w, b)",
    ),
    (
        "group_norm",
        "in x: f32[2,4,3]\nin w: f32[4]\nin b: f32[4]\n\
         y: f32[2,4,3] = GroupNormalization(x, w, b) {num_groups=2}",
    ),
    ("lp_norm", "in x: f32[2,4]\ny: f32[2,4] = LpNormalization(x)"),
    ("mean_variance_norm", "in x: f32[2,3,2,2]\ny: f32[2,3,2,2] = MeanVarianceNormalization(x)"),
    (
        "resize",
        "in x: f32[1,1,2,3]\ny: f32[1,1,4,3] = Resize(x) {scales=[1.0, 1.0, 2.0, 1.0], mode=\"linear\"}",
    ),
    ("lrn", "in x: f32[1,3,2]\ny: f32[1,3,2] = LRN(x) {size=3}"),
    ("reduce_mean", "in x: f32[2,3]\ny: f32[2] = ReduceMean(x) {axes=[1], keepdims=0}"),
    ("reduce_mean of 4", "in x: f32[2,4]\ny: f32[2,1] = ReduceMean(x) {axes=[1]}"),
    ("reduce_l1", "in x: f32[2,3]\ny: f32[2,1] = ReduceL1(x) {axes=[1]}"),
    ("reduce_l2", "in x: f32[2,3]\ny: f32[2,1] = ReduceL2(x) {axes=[1]}"),
    ("reduce_sum_square", "in x: f32[2,3]\ny: f32[1,1] = ReduceSumSquare(x)"),
    ("reduce_log_sum", "in x: f32[2,3]\ny: f32[2,1] = ReduceLogSum(x) {axes=[1]}"),
    ("reduce_log_sum_exp", "in x: f32[2,3]\ny: f32[2,1] = ReduceLogSumExp(x) {axes=[1]}"),
    ("reduce_prod", "in x: f32[2,5]\ny: f32[2,1] = ReduceProd(x) {axes=[1]}"),
    ("mean", "in a: f32[2]\nin b: f32[2]\nin c: f32[2]\ny: f32[2] = Mean(a, b, c)"),
    (
        "average_pool",
        "in x: f32[1,2,5]\ny: f32[1,2,3] = AveragePool(x) \
         {kernel_shape=[3], pads=[1, 1], strides=[2]}",
    ),
    (
        "average_pool of 2 by 2",
        "in x: f32[1,2,4,4]\n\
         y: f32[1,2,2,2] = AveragePool(x) {kernel_shape=[2, 2], strides=[2, 2]}",
    ),
    ("global_average_pool", "in x: f32[1,2,3,3]\ny: f32[1,2,1,1] = GlobalAveragePool(x)"),
    ("lp_pool", "in x: f32[1,2,4]\ny: f32[1,2,3] = LpPool(x) {kernel_shape=[2]}"),
    ("global_lp_pool", "in x: f32[1,2,4]\ny: f32[1,2,1] = GlobalLpPool(x) {p=1}"),
    (
        "cross_entropy",
        "in x: f32[2,3]\nin t: i64[2]\n\
         y: f32[], p: f32[2,3] = SoftmaxCrossEntropyLoss(x, t)",
    ),
    (
        "nll_loss",
        "in x: f32[2,3,4]\nin t: i64[2,4]\nin w: f32[3]\n\
         y: f32[] = NegativeLogLikelihoodLoss(x, t, w) {ignore_index=-1}",
    ),
    (
        "dropout",
        "in x: f32[2,3]\n\
         y: f32[2,3], m: bool[2,3] = Dropout(x) \
         {ratio=f32[] 0.3, seed=7, training_mode=bool[] true}",
    ),
    ("dropout when not training", "in x: f32[2]\ny: f32[2] = Dropout(x)"),
    (
        "attention",
        "in q: f32[1,3,8]\nin k: f32[1,3,4]\nin v: f32[1,3,4]\n\
         y: f32[1,3,8] = Attention(q, k, v) {is_causal=1, kv_num_heads=1, q_num_heads=2}",
    ),
    (
        "attention to a window without padding",
        "in q: f32[1,2,3,4]\nin k: f32[1,2,5,4]\nin v: f32[1,2,5,4]\nin m: bool[3,4]\nin n: i64[1]\n\
         y: f32[1,2,3,4] = Attention(q, k, v, m, _, _, n) {left_window_size=1, right_window_size=1}",
    ),
    (
        "rotary_embedding",
        "in x: f32[1,2,3,4]\nin c: f32[1,3,2]\nin s: f32[1,3,2]\n\
         y: f32[1,2,3,4] = RotaryEmbedding(x, c, s)",
    ),
    ("random_normal", "y: f32[2,3] = RandomNormal() {shape=[2, 3]}"),
    ("random_uniform", "y: f32[2,3] = RandomUniform() {high=4.0, shape=[2, 3]}"),
];

/// Every case: its name and the text of its graph. Every value that a node makes is an output.
pub fn all() -> Vec<(String, String)> {
    let unary = UNARY.iter().map(|(op, attrs)| {
        let name = format!("{op} {attrs}").to_lowercase();
        let attrs = if attrs.is_empty() { String::new() } else { format!(" {{{attrs}}}") };
        (name, format!("in x: f32[4]\ny: f32[4] = {op}(x){attrs}"))
    });
    let others = OTHERS.iter().map(|(name, lines)| ((*name).to_owned(), (*lines).to_owned()));
    unary.chain(others).map(|(name, lines)| (name.clone(), graph(&lines))).collect()
}

/// The lines as a graph whose outputs are what its nodes make.
pub fn graph(lines: &str) -> String {
    let mut text = "graph g {\n".to_owned();
    let mut outputs = Vec::new();
    for line in lines.lines() {
        text += &format!("  {line}\n");
        let made = line.split_once(" = ").filter(|_| {
            let keyword = line.split(' ').next();
            !matches!(keyword, Some("in" | "const"))
        });
        for part in made.map_or("", |(left, _)| left).split(", ") {
            outputs.extend(part.split_once(':').map(|(name, _)| name));
        }
    }
    for name in outputs {
        text += &format!("  out {name} = {name}\n");
    }
    text + "}\n"
}
