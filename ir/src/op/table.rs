//! The rows. One op a line: variant, ONNX name, opset of this form, operands, attributes, level,
//! shape rule, multiplication count, documentation. The notation is that of `signature.rs`.

use super::{Level, Row, count, infer};

macro_rules! ops {
    ($($variant:ident $onnx:literal $since:literal $sig:literal $attrs:literal
       $level:ident $infer:ident $count:ident $doc:literal)*) => {
        /// An op of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each variant is documented by its row")]
        pub enum Op {
            $(#[doc = $doc] $variant,)*
        }

        pub(super) static TABLE: &[Row] = &[$(Row {
            op: Op::$variant,
            variant: stringify!($variant),
            onnx: $onnx,
            since: $since,
            signature: $sig,
            attributes: $attrs,
            level: Level::$level,
            infer: infer::$infer,
            count: count::$count,
            doc: $doc,
        },)*];
    };
}

#[rustfmt::skip]
ops! {
    // Additions, comparisons and selections.
    Add "Add" 14 "A, B -> C" "" Plain broadcast zero "Elementwise sum."
    Sub "Sub" 14 "A, B -> C" "" Plain broadcast zero "Elementwise difference."
    Sum "Sum" 13 "inputs* -> sum" "" Plain broadcast zero "Elementwise sum of any number of operands."
    Neg "Neg" 13 "X -> Y" "" Plain same zero "Sign flip."
    Abs "Abs" 13 "X -> Y" "" Plain same zero "Magnitude."
    Sign "Sign" 13 "X -> Y" "" Plain same zero "-1, 0 or 1."
    Floor "Floor" 13 "X -> Y" "" Plain same zero "Rounding towards minus infinity."
    Ceil "Ceil" 13 "X -> Y" "" Plain same zero "Rounding towards infinity."
    Round "Round" 22 "X -> Y" "" Plain same zero "Rounding to the nearest integer, ties to even."
    Relu "Relu" 14 "X -> Y" "" Plain same zero "max(x, 0)."
    Max "Max" 13 "data* -> max" "" Plain broadcast zero "Elementwise maximum of any number of operands."
    Min "Min" 13 "data* -> min" "" Plain broadcast zero "Elementwise minimum of any number of operands."
    Clip "Clip" 13 "input, min?, max? -> output" "" Plain clip zero "Limits values to a range."
    ThresholdedRelu "ThresholdedRelu" 22 "X -> Y" "alpha:float=1.0" Plain same zero "x where x > alpha, else 0."
    Shrink "Shrink" 9 "input -> output" "bias:float=0.0, lambd:float=0.5" Plain same zero "Soft or hard shrinkage."
    Hardmax "Hardmax" 13 "input -> output" "axis:int=-1" Plain same zero "One at the first maximum of an axis, else 0."
    Where "Where" 16 "condition, X, Y -> output" "" Plain select zero "Elementwise selection."
    Equal "Equal" 19 "A, B -> C" "" Plain compare zero "Elementwise equality."
    Less "Less" 13 "A, B -> C" "" Plain compare zero "A < B."
    LessOrEqual "LessOrEqual" 16 "A, B -> C" "" Plain compare zero "A <= B."
    Greater "Greater" 13 "A, B -> C" "" Plain compare zero "A > B."
    GreaterOrEqual "GreaterOrEqual" 16 "A, B -> C" "" Plain compare zero "A >= B."
    And "And" 7 "A, B -> C" "" Plain compare zero "Logical and."
    Or "Or" 7 "A, B -> C" "" Plain compare zero "Logical or."
    Xor "Xor" 7 "A, B -> C" "" Plain compare zero "Logical exclusive or."
    Not "Not" 1 "X -> Y" "" Plain predicate zero "Logical negation."
    IsNaN "IsNaN" 20 "X -> Y" "" Plain predicate zero "Whether a value is NaN."
    IsInf "IsInf" 20 "X -> Y" "detect_negative:int=1, detect_positive:int=1" Plain predicate zero "Whether a value is infinite."
    BitwiseAnd "BitwiseAnd" 18 "A, B -> C" "" Plain broadcast zero "Bitwise and of integers."
    BitwiseOr "BitwiseOr" 18 "A, B -> C" "" Plain broadcast zero "Bitwise or of integers."
    BitwiseXor "BitwiseXor" 18 "A, B -> C" "" Plain broadcast zero "Bitwise exclusive or of integers."
    BitwiseNot "BitwiseNot" 18 "X -> Y" "" Plain same zero "Bitwise complement of integers."
    BitShift "BitShift" 11 "X, Y -> Z" "direction:str" Plain broadcast zero "Bit shift of integers."
    Cast "Cast" 25 "input -> output" "to:type, saturate:int=1, round_mode:str=up" Plain cast zero "Element type conversion."
    CastLike "CastLike" 25 "input, target_type -> output" "saturate:int=1, round_mode:str=up" Plain cast_like zero "Element type conversion to that of another tensor."
    BitCast "BitCast" 26 "input -> output" "to:type" Plain cast zero "The same bits as another element type."

    // Data movement.
    Identity "Identity" 25 "input -> output" "" Plain same zero "The input itself."
    Reshape "Reshape" 25 "data, shape:ints! -> reshaped" "allowzero:int=0" Plain reshape zero "The same elements under another shape."
    Flatten "Flatten" 25 "input -> output" "axis:int=1" Plain flatten zero "The same elements as a matrix."
    Squeeze "Squeeze" 25 "data, axes:ints?! -> squeezed" "" Plain squeeze zero "Removes dimensions of size 1."
    Unsqueeze "Unsqueeze" 25 "data, axes:ints! -> expanded" "" Plain unsqueeze zero "Inserts dimensions of size 1."
    Transpose "Transpose" 25 "data -> transposed" "perm:ints?" Plain transpose zero "Permutes dimensions."
    Expand "Expand" 13 "input, shape:ints! -> output" "" Plain expand zero "Broadcasts to a shape."
    Tile "Tile" 13 "input, repeats:ints! -> output" "" Plain tile zero "Repeats along dimensions."
    Concat "Concat" 13 "inputs* -> concat_result" "axis:int" Plain concat zero "Joins tensors along an axis."
    Split "Split" 18 "input, split:ints?! -> outputs*" "axis:int=0, num_outputs:int?" Plain split zero "Cuts a tensor along an axis."
    Slice "Slice" 13 "data, starts:ints!, ends:ints!, axes:ints?!, steps:ints?! -> output" "" Plain slice zero "A strided range of each axis."
    Pad "Pad" 25 "data, pads:ints!, constant_value?, axes:ints?! -> output" "mode:str=constant" Plain pad zero "Adds a border."
    Gather "Gather" 13 "data, indices -> output" "axis:int=0" Plain gather zero "Picks slices along an axis."
    GatherElements "GatherElements" 13 "data, indices -> output" "axis:int=0" Plain gather_elements zero "Picks elements along an axis."
    GatherND "GatherND" 13 "data, indices -> output" "batch_dims:int=0" Plain gather_nd zero "Picks slices by index tuples."
    ScatterElements "ScatterElements" 18 "data, indices, updates -> output" "axis:int=0, reduction:str=none" Plain scatter scatter "Writes or adds elements along an axis."
    ScatterND "ScatterND" 18 "data, indices, updates -> output" "reduction:str=none" Plain scatter scatter "Writes or adds slices by index tuples."
    Trilu "Trilu" 14 "input, k:int?! -> output" "upper:int=1" Plain same zero "Upper or lower triangle."
    DepthToSpace "DepthToSpace" 13 "input -> output" "blocksize:int, mode:str=DCR" Plain depth_to_space zero "Moves blocks of channels into space."
    SpaceToDepth "SpaceToDepth" 13 "input -> output" "blocksize:int" Plain space_to_depth zero "Moves blocks of space into channels."
    ReverseSequence "ReverseSequence" 10 "input, sequence_lens -> Y" "batch_axis:int=1, time_axis:int=0" Plain reverse_sequence zero "Reverses a prefix of each row."
    Col2Im "Col2Im" 18 "input, image_shape:ints!, block_shape:ints! -> output" "dilations:ints?, pads:ints?, strides:ints?" Plain col2im zero "Adds columns of blocks into an image."
    OneHot "OneHot" 11 "indices, depth:int!, values -> output" "axis:int=-1" Plain one_hot zero "One-hot encoding with given off and on values."
    CenterCropPad "CenterCropPad" 18 "input_data, shape:ints! -> output_data" "axes:ints?" Plain center_crop_pad zero "Crops or pads around the centre."

    // Sources of constants.
    Shape "Shape" 25 "data -> shape" "start:int=0, end:int?" Plain shape zero "The dimensions as integers."
    Size "Size" 25 "data -> size" "" Plain size zero "The number of elements."
    ConstantOfShape "ConstantOfShape" 25 "input:ints! -> output" "value:tensor?" Plain constant_of_shape zero "A tensor filled with one value."
    Range "Range" 11 "start:tensor!, limit:tensor!, delta:tensor! -> output" "" Plain range zero "An arithmetic sequence."
    EyeLike "EyeLike" 22 "input -> output" "dtype:type?, k:int=0" Plain eye_like zero "Ones on a diagonal."

    // Reductions by addition and comparison.
    ReduceSum "ReduceSum" 13 "data, axes:ints?! -> reduced" "keepdims:int=1, noop_with_empty_axes:int=0" Plain reduce zero "Sum over axes."
    ReduceMax "ReduceMax" 20 "data, axes:ints?! -> reduced" "keepdims:int=1, noop_with_empty_axes:int=0" Plain reduce zero "Maximum over axes."
    ReduceMin "ReduceMin" 20 "data, axes:ints?! -> reduced" "keepdims:int=1, noop_with_empty_axes:int=0" Plain reduce zero "Minimum over axes."
    ArgMax "ArgMax" 13 "data -> reduced" "axis:int=0, keepdims:int=1, select_last_index:int=0" Plain arg_reduce zero "Index of the maximum."
    ArgMin "ArgMin" 13 "data -> reduced" "axis:int=0, keepdims:int=1, select_last_index:int=0" Plain arg_reduce zero "Index of the minimum."
    CumSum "CumSum" 14 "x, axis:int! -> y" "exclusive:int=0, reverse:int=0" Plain same zero "Running sum along an axis."
    TopK "TopK" 24 "X, K:int! -> Values, Indices" "axis:int=-1, largest:int=1, sorted:int=1" Plain top_k zero "The largest or smallest elements of an axis."
    MaxPool "MaxPool" 22 "X -> Y, Indices?" "kernel_shape:ints, strides:ints?, pads:ints?, dilations:ints?, auto_pad:str=NOTSET, ceil_mode:int=0, storage_order:int=0" Plain pool zero "Maximum over windows, with the flat index of each."
    GlobalMaxPool "GlobalMaxPool" 22 "X -> Y" "" Plain global_pool zero "Maximum over all spatial positions."
    MaxUnpool "MaxUnpool" 22 "X, I, output_shape:ints?! -> output" "kernel_shape:ints, strides:ints?, pads:ints?" Plain max_unpool zero "Writes pooled values back to their indices."

    // The piecewise affine primitives. `offset` is bits(alpha) - bits(1) of the error compensation,
    // `mantissa` the number of mantissa bits kept in the operands of a contraction (23 is all).
    PamMul "pam::mul" 1 "a, b -> c" "offset:int=0" Pam broadcast zero "PA product."
    PamDiv "pam::div" 1 "a, b -> c" "offset:int=0" Pam broadcast zero "PA quotient."
    PamExp2 "pam::exp2" 1 "x -> y" "" Pam same zero "PA power of two."
    PamLog2 "pam::log2" 1 "x -> y" "" Pam same zero "PA binary logarithm."
    PamScale "pam::scale_pow2" 1 "x -> y" "exponent:int" Pam same zero "Exact scaling by a power of two: an addition to the exponent."
    PamRound "pam::round_mantissa" 1 "x -> y" "mantissa:int" Pam same zero "Rounds to a narrow mantissa."
    PamMatMul "pam::matmul" 1 "a, b -> c" "offset:int=0, mantissa:int=23" Pam matmul zero "PA matrix product."
    PamConv "pam::conv" 1 "x, w -> y" "strides:ints?, pads:ints?, dilations:ints?, input_dilations:ints?, group:int=1, offset:int=0, mantissa:int=23" Pam conv zero "PA convolution; input dilation inserts zeros."
    PamMulGrad "pam::mul_grad" 1 "a, b, delta -> grad" "offset:int=0" Pam broadcast zero "Exact derivative of the PA product by `a`, times `delta`."
    PamDivGradA "pam::div_grad_a" 1 "a, b, delta -> grad" "offset:int=0" Pam broadcast zero "Exact derivative of the PA quotient by `a`, times `delta`."
    PamDivGradB "pam::div_grad_b" 1 "a, b, delta -> grad" "offset:int=0" Pam broadcast zero "Exact derivative of the PA quotient by `b`, times `delta`."
    PamExp2Grad "pam::exp2_grad" 1 "x, delta -> grad" "" Pam broadcast zero "Exact derivative of the PA power of two, times `delta`."
    PamLog2Grad "pam::log2_grad" 1 "x, delta -> grad" "" Pam broadcast zero "Exact derivative of the PA logarithm, times `delta`."
    PamMatMulGradA "pam::matmul_grad_a" 1 "a, b, delta -> grad" "offset:int=0, mantissa:int=23" Pam matmul_grad_a zero "Exact derivative of the PA matrix product by `a`."
    PamMatMulGradB "pam::matmul_grad_b" 1 "a, b, delta -> grad" "offset:int=0, mantissa:int=23" Pam matmul_grad_b zero "Exact derivative of the PA matrix product by `b`."
    PamUniform "pam::uniform" 1 "step -> u" "key:ints, shape:ints" Pam random_uniform zero "Uniform numbers in [0, 1) from Threefry-2x32."

    // Ops that multiply and that the runtime can execute natively.
    Mul "Mul" 14 "A, B -> C" "" Native broadcast each_output "Elementwise product."
    Div "Div" 14 "A, B -> C" "" Native broadcast each_output "Elementwise quotient."
    Mod "Mod" 13 "A, B -> C" "fmod:int=0" Native broadcast each_output "Elementwise remainder."
    Pow "Pow" 15 "X, Y -> Z" "" Native power each_output "Elementwise power."
    Exp "Exp" 13 "input -> output" "" Native same each_output "Natural exponential."
    Log "Log" 13 "input -> output" "" Native same each_output "Natural logarithm."
    Sqrt "Sqrt" 13 "X -> Y" "" Native same each_output "Square root."
    Reciprocal "Reciprocal" 13 "X -> Y" "" Native same each_output "1 / x."
    Tanh "Tanh" 13 "input -> output" "" Native same each_output "Hyperbolic tangent."
    Sigmoid "Sigmoid" 13 "X -> Y" "" Native same each_output "1 / (1 + exp(-x))."
    Erf "Erf" 13 "input -> output" "" Native same each_output "Error function."
    Sin "Sin" 22 "input -> output" "" Native same each_output "Sine."
    Cos "Cos" 22 "input -> output" "" Native same each_output "Cosine."
    Tan "Tan" 22 "input -> output" "" Native same each_output "Tangent."
    Asin "Asin" 22 "input -> output" "" Native same each_output "Inverse sine."
    Acos "Acos" 22 "input -> output" "" Native same each_output "Inverse cosine."
    Atan "Atan" 22 "input -> output" "" Native same each_output "Inverse tangent."
    Sinh "Sinh" 22 "input -> output" "" Native same each_output "Hyperbolic sine."
    Cosh "Cosh" 22 "input -> output" "" Native same each_output "Hyperbolic cosine."
    Asinh "Asinh" 22 "input -> output" "" Native same each_output "Inverse hyperbolic sine."
    Acosh "Acosh" 22 "input -> output" "" Native same each_output "Inverse hyperbolic cosine."
    Atanh "Atanh" 22 "input -> output" "" Native same each_output "Inverse hyperbolic tangent."
    MatMul "MatMul" 13 "A, B -> Y" "" Native matmul matmul "Matrix product with batch broadcasting."
    Conv "Conv" 22 "X, W, B? -> Y" "kernel_shape:ints?, strides:ints?, pads:ints?, dilations:ints?, input_dilations:ints?, group:int=1, auto_pad:str=NOTSET" Native conv conv "Convolution. `input_dilations`, which ONNX lacks, inserts zeros and never leaves the compiler."

    // Ops that multiply and are always lowered.
    ConvTranspose "ConvTranspose" 22 "X, W, B? -> Y" "kernel_shape:ints?, strides:ints?, pads:ints?, dilations:ints?, output_padding:ints?, output_shape:ints?, group:int=1, auto_pad:str=NOTSET" Composite conv_transpose conv_transpose "Transposed convolution."
    Gemm "Gemm" 13 "A, B, C? -> Y" "alpha:float=1.0, beta:float=1.0, transA:int=0, transB:int=0" Composite gemm gemm "alpha * A * B + beta * C."
    Einsum "Einsum" 12 "Inputs* -> Output" "equation:str" Composite einsum einsum "Einstein summation."
    Softmax "Softmax" 13 "input -> output" "axis:int=-1" Composite same twice_each_output "exp(x) over its sum along an axis."
    LogSoftmax "LogSoftmax" 13 "input -> output" "axis:int=-1" Composite same log_softmax "Logarithm of the softmax along an axis."
    Softplus "Softplus" 22 "X -> Y" "" Composite same twice_each_output "log(1 + exp(x))."
    Softsign "Softsign" 22 "input -> output" "" Composite same each_output "x / (1 + |x|)."
    Gelu "Gelu" 20 "X -> Y" "approximate:str=none" Composite same gelu "x times the normal distribution function."
    Elu "Elu" 22 "X -> Y" "alpha:float=1.0" Composite same twice_each_output "x or alpha * (exp(x) - 1)."
    Selu "Selu" 22 "X -> Y" "alpha:float=1.67326319217681884765625, gamma:float=1.05070102214813232421875" Composite same thrice_each_output "Scaled ELU."
    Celu "Celu" 12 "X -> Y" "alpha:float=1.0" Composite same thrice_each_output "Continuously differentiable ELU."
    LeakyRelu "LeakyRelu" 16 "X -> Y" "alpha:float=0.01" Composite same each_output "x or alpha * x."
    PRelu "PRelu" 16 "X, slope -> Y" "" Composite first each_output "x or slope * x."
    HardSigmoid "HardSigmoid" 22 "X -> Y" "alpha:float=0.2, beta:float=0.5" Composite same each_output "max(0, min(1, alpha * x + beta))."
    HardSwish "HardSwish" 22 "X -> Y" "" Composite same twice_each_output "x * HardSigmoid(x)."
    Swish "Swish" 24 "X -> Y" "alpha:float=1.0" Composite same thrice_each_output "x * sigmoid(alpha * x)."
    Mish "Mish" 22 "X -> Y" "" Composite same mish "x * tanh(softplus(x))."
    LayerNormalization "LayerNormalization" 17 "X, Scale, B? -> Y, Mean?, InvStdDev?" "axis:int=-1, epsilon:float=1e-5, stash_type:int=1" Composite layer_norm layer_norm "Normalisation over the last axes."
    RMSNormalization "RMSNormalization" 23 "X, scale -> Y" "axis:int=-1, epsilon:float=1e-5, stash_type:int=1" Composite same layer_norm "Normalisation by the root mean square of the last axes."
    BatchNormalization "BatchNormalization" 15 "X, scale, B, input_mean, input_var -> Y, running_mean?, running_var?" "epsilon:float=1e-5, momentum:float=0.9, training_mode:int=0" Composite batch_norm batch_norm "Normalisation of each channel over the batch."
    InstanceNormalization "InstanceNormalization" 22 "input, scale, B -> output" "epsilon:float=1e-5" Composite same layer_norm "Normalisation of each channel of each sample."
    GroupNormalization "GroupNormalization" 21 "X, scale, bias -> Y" "epsilon:float=1e-5, num_groups:int, stash_type:int=1" Composite same layer_norm "Normalisation of groups of channels of each sample."
    LpNormalization "LpNormalization" 22 "input -> output" "axis:int=-1, p:int=2" Composite same twice_each_output "Division by the p-norm of an axis."
    MeanVarianceNormalization "MeanVarianceNormalization" 13 "X -> Y" "axes:ints?" Composite same twice_each_output "Zero mean and unit variance over axes."
    Resize "Resize" 19 "X, roi:floats?!, scales:floats?!, sizes:ints?! -> Y" "antialias:int=0, axes:ints?, coordinate_transformation_mode:str=half_pixel, cubic_coeff_a:float=-0.75, exclude_outside:int=0, extrapolation_value:float=0.0, keep_aspect_ratio_policy:str=stretch, mode:str=nearest, nearest_mode:str=round_prefer_floor" Composite resize resize "Interpolation to another size."
    LRN "LRN" 13 "X -> Y" "alpha:float=0.0001, beta:float=0.75, bias:float=1.0, size:int" Composite same thrice_each_output "Local response normalisation across channels."
    ReduceMean "ReduceMean" 18 "data, axes:ints?! -> reduced" "keepdims:int=1, noop_with_empty_axes:int=0" Composite reduce each_output "Mean over axes."
    ReduceL1 "ReduceL1" 18 "data, axes:ints?! -> reduced" "keepdims:int=1, noop_with_empty_axes:int=0" Composite reduce zero "Sum of magnitudes over axes."
    ReduceL2 "ReduceL2" 18 "data, axes:ints?! -> reduced" "keepdims:int=1, noop_with_empty_axes:int=0" Composite reduce input_and_output "Euclidean norm over axes."
    ReduceSumSquare "ReduceSumSquare" 18 "data, axes:ints?! -> reduced" "keepdims:int=1, noop_with_empty_axes:int=0" Composite reduce each_input "Sum of squares over axes."
    ReduceLogSum "ReduceLogSum" 18 "data, axes:ints?! -> reduced" "keepdims:int=1, noop_with_empty_axes:int=0" Composite reduce each_output "Logarithm of the sum over axes."
    ReduceLogSumExp "ReduceLogSumExp" 18 "data, axes:ints?! -> reduced" "keepdims:int=1, noop_with_empty_axes:int=0" Composite reduce input_and_output "Logarithm of the sum of exponentials over axes."
    ReduceProd "ReduceProd" 18 "data, axes:ints?! -> reduced" "keepdims:int=1, noop_with_empty_axes:int=0" Composite reduce each_input "Product over axes."
    Mean "Mean" 13 "data* -> mean" "" Composite broadcast mean "Elementwise mean of any number of operands."
    AveragePool "AveragePool" 22 "X -> Y" "kernel_shape:ints, strides:ints?, pads:ints?, dilations:ints?, auto_pad:str=NOTSET, ceil_mode:int=0, count_include_pad:int=0" Composite pool each_output "Mean over windows."
    GlobalAveragePool "GlobalAveragePool" 22 "X -> Y" "" Composite global_pool each_output "Mean over all spatial positions."
    LpPool "LpPool" 22 "X -> Y" "kernel_shape:ints, strides:ints?, pads:ints?, dilations:ints?, auto_pad:str=NOTSET, ceil_mode:int=0, p:int=2" Composite pool lp_pool "p-norm over windows."
    GlobalLpPool "GlobalLpPool" 22 "X -> Y" "p:int=2" Composite global_pool each_input "p-norm over all spatial positions."
    SoftmaxCrossEntropyLoss "SoftmaxCrossEntropyLoss" 13 "scores, labels, weights? -> output, log_prob?" "ignore_index:int?, reduction:str=mean" Composite cross_entropy cross_entropy "Negative log-likelihood of the softmax."
    NegativeLogLikelihoodLoss "NegativeLogLikelihoodLoss" 22 "input, target, weight? -> loss" "ignore_index:int?, reduction:str=mean" Composite nll_loss likelihood "Negative log-likelihood."
    Dropout "Dropout" 22 "data, ratio:tensor?!, training_mode:tensor?! -> output, mask?" "seed:int?" Composite dropout dropout "Zeroes elements at random and scales the rest."
    Attention "Attention" 24 "Q, K, V, attn_mask?, past_key?, past_value?, nonpad_kv_seqlen? -> Y, present_key?, present_value?, qk_matmul_output?" "is_causal:int=0, kv_num_heads:int?, left_window_size:int=-1, q_num_heads:int?, qk_matmul_output_mode:int=0, right_window_size:int=-1, scale:float?, softcap:float=0.0, softmax_precision:int?" Composite attention attention "Scaled dot-product attention."
    RotaryEmbedding "RotaryEmbedding" 23 "X, cos_cache, sin_cache, position_ids? -> Y" "interleaved:int=0, num_heads:int=0, rotary_embedding_dim:int=0" Composite same twice_each_output "Rotary position embedding."
    RandomNormal "RandomNormal" 22 "-> output" "dtype:type?, mean:float=0.0, scale:float=1.0, seed:float?, shape:ints" Composite random thrice_each_output "Normal random numbers."
    RandomNormalLike "RandomNormalLike" 22 "input -> output" "dtype:type?, mean:float=0.0, scale:float=1.0, seed:float?" Composite random_like thrice_each_output "Normal random numbers in the shape of another tensor."
    RandomUniform "RandomUniform" 22 "-> output" "dtype:type?, high:float=1.0, low:float=0.0, seed:float?, shape:ints" Composite random uniform "Uniform random numbers."
    RandomUniformLike "RandomUniformLike" 22 "input -> output" "dtype:type?, high:float=1.0, low:float=0.0, seed:float?" Composite random_like uniform "Uniform random numbers in the shape of another tensor."
    Bernoulli "Bernoulli" 22 "input -> output" "dtype:type?, seed:float?" Composite random_like zero "One with the probability given, else 0."

    Gradient "ai.onnx.preview.training::Gradient" 1 "y, xs* -> dys*" "" Composite gradient all_outputs "The derivatives of y by each x; the operands that ONNX names in attributes are inputs here."

    Opaque "opaque::opaque" 1 "inputs* -> outputs*" "onnx:str" Opaque opaque zero "An op the table does not know; it stands in audited files only."
}
