//! Einsum equations.

use std::collections::BTreeMap;

/// A parsed equation over operands of known shapes. Labels are numbered: first those of the
/// ellipsis, outermost first, then the letters in alphabetical order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Einsum {
    /// The labels of each operand's axes.
    pub inputs: Vec<Vec<usize>>,
    /// The labels of the output's axes.
    pub output: Vec<usize>,
    /// The size of each label; an operand may have 1 there instead and is then broadcast.
    pub sizes: Vec<usize>,
}

impl Einsum {
    /// Reads an equation such as `bij,bjk->bik` or `...ij,...jk`.
    ///
    /// # Errors
    /// Says where the equation does not fit the operands.
    pub fn parse(equation: &str, shapes: &[&[usize]]) -> Result<Einsum, String> {
        let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match text.split_once("->") {
            Some((l, r)) => (l, Some(r)),
            None => (text.as_str(), None),
        };
        let terms: Vec<Term<'_>> = left.split(',').map(Term::parse).collect::<Result<_, _>>()?;
        if terms.len() != shapes.len() {
            return Err(format!("`{equation}` names {} operands of {}", terms.len(), shapes.len()));
        }
        let mut rest = 0;
        for (term, shape) in terms.iter().zip(shapes) {
            let letters = term.before.len() + term.after.len();
            let hidden = shape.len().checked_sub(letters);
            match hidden {
                Some(n) if n == 0 || term.ellipsis => rest = rest.max(n),
                _ => return Err(format!("`{equation}` does not fit rank {}", shape.len())),
            }
        }
        let letters: std::collections::BTreeSet<u8> =
            terms.iter().flat_map(|t| t.before.bytes().chain(t.after.bytes())).collect();
        let index: BTreeMap<u8, usize> =
            letters.iter().enumerate().map(|(i, &c)| (c, rest + i)).collect();
        let mut sizes = vec![1; rest + letters.len()];
        let mut inputs = Vec::new();
        for (term, shape) in terms.iter().zip(shapes) {
            let hidden = shape.len() - term.before.len() - term.after.len();
            let labels = term.labels(rest - hidden..rest, &index);
            for (&label, &d) in labels.iter().zip(*shape) {
                match sizes[label] {
                    1 => sizes[label] = d,
                    n if n == d || d == 1 => {}
                    n => return Err(format!("one label of `{equation}` is {n} and {d}")),
                }
            }
            inputs.push(labels);
        }
        let output = match right {
            Some(right) => {
                let term = Term::parse(right)?;
                let unknown =
                    term.before.bytes().chain(term.after.bytes()).find(|c| !index.contains_key(c));
                if let Some(c) = unknown {
                    return Err(format!("output label `{}` is in no operand", c as char));
                }
                term.labels(if term.ellipsis { 0..rest } else { 0..0 }, &index)
            }
            None => {
                let count = |c: u8| {
                    let all = terms.iter().flat_map(|t| t.before.bytes().chain(t.after.bytes()));
                    all.filter(|&x| x == c).count()
                };
                let once = letters.iter().filter(|&&c| count(c) == 1).map(|c| index[c]);
                (0..rest).chain(once).collect()
            }
        };
        let mut seen = output.clone();
        seen.sort_unstable();
        if seen.windows(2).any(|w| w[0] == w[1]) {
            return Err(format!("`{equation}` repeats a label in the output"));
        }
        Ok(Einsum { inputs, output, sizes })
    }
}

/// One operand: letters, perhaps an ellipsis, letters.
struct Term<'t> {
    before: &'t str,
    ellipsis: bool,
    after: &'t str,
}

impl<'t> Term<'t> {
    fn parse(text: &'t str) -> Result<Term<'t>, String> {
        let (before, ellipsis, after) = match text.split_once("...") {
            Some((b, a)) => (b, true, a),
            None => (text, false, ""),
        };
        if before.chars().chain(after.chars()).all(|c| c.is_ascii_alphabetic()) {
            Ok(Term { before, ellipsis, after })
        } else {
            Err(format!("`{text}` is not an einsum operand"))
        }
    }

    fn labels(&self, hidden: std::ops::Range<usize>, index: &BTreeMap<u8, usize>) -> Vec<usize> {
        let letters = |s: &str| s.bytes().map(|c| index[&c]).collect::<Vec<_>>();
        [letters(self.before), hidden.collect(), letters(self.after)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::Einsum;

    #[test]
    fn equations() {
        let e = Einsum::parse("...ij, ...jk", &[&[5, 2, 3], &[7, 1, 3, 4]]).unwrap();
        assert_eq!(e.sizes, [7, 5, 2, 3, 4]);
        assert_eq!(e.inputs, [vec![1, 2, 3], vec![0, 1, 3, 4]]);
        assert_eq!(e.output, [0, 1, 2, 4]);
        assert_eq!(Einsum::parse("ii->i", &[&[3, 3]]).unwrap().output, [0]);
        assert!(Einsum::parse("ij,jk->iq", &[&[2, 3], &[3, 4]]).is_err());
        assert!(Einsum::parse("ij,jk", &[&[2, 3], &[4, 4]]).is_err());
        assert!(Einsum::parse("ij", &[&[2, 3, 4]]).is_err());
    }
}
