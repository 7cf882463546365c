//! What single instructions do, by their names.

use super::Kind;

/// Float formats at the end of a mnemonic.
const FLOATS: [&str; 6] = ["ss", "sd", "ps", "pd", "sh", "ph"];

/// What an instruction does that a PA kernel may not; `name` is its mnemonic in lower case.
///
/// Approximations, reductions and transcendental functions count as what they stand for, and so do
/// instructions of extensions that hardly any processor has: the list is of all that is known to
/// multiply, whoever may come to emit it.
pub(super) fn classify(name: &str) -> Option<Kind> {
    let bare = name.strip_prefix('v').unwrap_or(name);
    let begins = |stems: &[&str]| stems.iter().any(|s| bare.starts_with(s));
    let float = |stems: &[&str]| {
        let ends = |s: &&str| bare.strip_prefix(*s).is_some_and(|end| FLOATS.contains(&end));
        stems.iter().any(ends)
    };
    if float(&["mul", "scalef", "scale", "dp", "exp2", "exp223", "log2"])
        || begins(&["fmul", "fimul", "fcmul", "fscale", "pfmul"])
        || begins(&["f2xm1", "fyl2x", "fsin", "fcos", "fptan", "fpatan"])
    {
        return Some(Kind::FloatMultiply);
    }
    if float(&["div", "rcp", "rcp14", "rcp23", "rcp28"])
        || begins(&["fdiv", "fidiv", "fprem", "pfrcp"])
    {
        return Some(Kind::FloatDivide);
    }
    if float(&["sqrt", "rsqrt", "rsqrt14", "rsqrt23", "rsqrt28"]) || begins(&["fsqrt", "pfrsq"]) {
        return Some(Kind::SquareRoot);
    }
    // Those that end in bf16 or begin with t are products of whole rows or tiles.
    if begins(&["fmadd", "fmsub", "fnmadd", "fnmsub", "4fmadd", "4fnmadd", "fcmadd", "dpbf16"])
        || begins(&["tdp", "tcmm", "tmm"])
    {
        return Some(Kind::FusedMultiplyAdd);
    }
    if begins(&["pmul", "pmadd", "pmac", "pmadc", "pdp", "p4dp", "mpsadbw", "pclmul", "gf2p8mul"])
        && !begins(&["pmultishift"])
    {
        return Some(Kind::VectorIntegerMultiply);
    }
    let scalar = ["imul", "mul", "mulx", "div", "idiv", "aam", "aad", "montmul"];
    scalar.contains(&bare).then_some(Kind::ScalarIntegerMultiply)
}

#[cfg(test)]
mod tests {
    use super::classify;
    use crate::audit::Kind;
    use iced_x86::Mnemonic;

    #[test]
    fn instructions_are_told_apart() {
        let cases: [(&[&str], Option<Kind>); 7] = [
            (
                &["vmulps", "mulsd", "fmul", "vmulph", "vscalefps", "vdpps", "vfcmulcsh", "pfmul"],
                Some(Kind::FloatMultiply),
            ),
            (&["vdivps", "fdivrp", "vrcp14ps", "rcpss", "pfrcp"], Some(Kind::FloatDivide)),
            (&["sqrtss", "vrsqrt14ps", "vsqrtph", "pfrsqrt", "fsqrt"], Some(Kind::SquareRoot)),
            (
                &["vfmadd231ps", "vfnmsub213ss", "vdpbf16ps", "vfmaddsub132pd", "tdpbf16ps"],
                Some(Kind::FusedMultiplyAdd),
            ),
            (
                &["vpmulld", "pmaddwd", "vpdpbusd", "vpmadd52luq", "vmpsadbw", "vp4dpwssd"],
                Some(Kind::VectorIntegerMultiply),
            ),
            (&["imul", "mul", "mulx", "div", "idiv"], Some(Kind::ScalarIntegerMultiply)),
            (
                &["vpaddd", "vaddps", "vcmpps", "vrndscaleps", "vpmultishiftqb", "vpsadbw", "lea"],
                None,
            ),
        ];
        for (names, kind) in cases {
            for name in names {
                assert_eq!(classify(name), kind, "{name}");
            }
        }
    }

    /// Every mnemonic that sounds like a multiplication is one, but for these.
    #[test]
    fn no_instruction_is_forgotten() {
        let stems = [
            "mul", "mad", "mac", "div", "rcp", "sqrt", "scale", "exp2", "log2", "dpp", "dpb", "dpw",
        ];
        let silent: Vec<String> = Mnemonic::values()
            .map(|m| format!("{m:?}").to_lowercase())
            .filter(|m| stems.iter().any(|s| m.contains(s)) && classify(m).is_none())
            // A choice of bits, and a rounding.
            .filter(|m| m != "vpmultishiftqb" && !m.contains("rndscale"))
            .collect();
        assert_eq!(silent, [""; 0]);
    }
}
