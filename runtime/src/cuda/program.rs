//! The text of fused programs.
//!
//! Every number that a program computes is a variable of the text, written once. Sizes and strides are
//! constants; the place of an element follows from its number by comparisons, subtractions and additions
//! of such constants, never by a multiplication.
//!
//! A program that reduces rows goes over each row once for each reduction that depends on another one,
//! and once more for its results. What it needs of the elements it computes again each time: the row is
//! in the cache, and the operations are cheap.

use super::emit::{Header, raw};
use super::expression::expression;
use crate::exec::program::{Access, Action, Compound, Format, Multiplied, Per, Program, Reg};
use crate::host::pointwise::Function;
use crate::host::strided::Strided;
use pam_kernels::reduce::Reduction;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::fmt::Write as _;

/// A number that a program loads or computes.
struct Value {
    what: What,
    args: SmallVec<[usize; 3]>,
    format: Format,
    /// How many passes over the row come before it is known.
    pass: usize,
}

enum What {
    /// The operand of the same number.
    Load,
    /// One element of it, at this place.
    Single(usize),
    /// An expression of the arguments.
    Compute(String),
    /// A reduction of the argument.
    Reduce(Reduction),
}

/// A program as its numbers.
struct Text<'p> {
    program: &'p Program,
    /// First those of the operands.
    values: Vec<Value>,
    /// The number that each result is.
    outs: Vec<usize>,
    header: Header,
}

/// The text of a program and the header it needs. Its parameters are the operands that are not
/// overwritten, the results, and the number of elements or rows; only where an operand is read along
/// strides or a row is reduced does the text depend on sizes.
///
/// # Errors
/// Names the op that has no device form.
pub fn program(p: &Program) -> Result<(Header, String), String> {
    let text = Text::new(p)?;
    let list: Vec<String> = parameters(p).map(|(ty, name)| format!("{ty}{name}")).collect();
    let (count, body) = match p.row {
        1 => ("count", format!("  PAM_EACH(n, count) {{\n{}  }}\n", text.elements())),
        _ => ("rows", text.rows()),
    };
    let (list, singles) = (list.join(", "), text.singles());
    Ok((text.header, format!("PAM_KERNEL @({list}, u32 {count}) {{\n{singles}{body}}}")))
}

/// The text of a program without rows that runs on several sets of operands in one launch. Its parameters
/// are a table with [`words`] words for each set – the number of its first block, the number of elements,
/// and the addresses – and the number of sets; a block takes [`ITEM_BLOCK`] elements.
///
/// # Errors
/// As [`program`].
pub fn program_of_items(p: &Program) -> Result<(Header, String), String> {
    let text = Text::new(p)?;
    let mut loads = String::new();
    for (i, (ty, name)) in parameters(p).enumerate() {
        let _ = writeln!(loads, "  {ty}{name} = ({ty})item[{}];", i + 2);
    }
    let (words, singles, body) = (words(p), text.singles(), text.elements());
    let text_of_items = format!(
        "PAM_KERNEL @(const u64 *table, u32 items) {{\n  const u64 *item = item_of_block(table, items, {words});\n\
         {loads}{singles}  PAM_EACH_OF_ITEM(n, item) {{\n{body}  }}\n}}"
    );
    Ok((text.header, text_of_items))
}

/// Elements that a block takes of a set of operands.
pub const ITEM_BLOCK: usize = 1024;

/// Words of the table for each set of operands.
pub fn words(p: &Program) -> usize {
    2 + parameters(p).count()
}

/// The addresses that a program takes, as types and names: operands, then results.
fn parameters(p: &Program) -> impl Iterator<Item = (String, String)> {
    let operands = p.operands.iter().enumerate();
    let operands = operands.filter(|(_, o)| !matches!(o.access, Access::InPlace(_)));
    let ins = operands.map(|(i, o)| (format!("const {} *", raw(o.format.size)), format!("i{i}")));
    let outs = p.outs.iter().enumerate();
    ins.chain(outs.map(|(k, f)| (format!("{} *", raw(f.size)), format!("o{k}"))))
}

impl<'p> Text<'p> {
    fn new(program: &'p Program) -> Result<Text<'p>, String> {
        let rows = program.row > 1;
        let header = if rows { Header::Rows } else { Header::Movement };
        let mut text = Text { program, values: Vec::new(), outs: Vec::new(), header };
        // What the registers hold at the action that is looked at.
        let mut held: HashMap<Reg, usize> = HashMap::new();
        for (i, operand) in program.operands.iter().enumerate() {
            held.insert(Reg::In(i as u16), i);
            if let Some(temp) = operand.kept {
                held.insert(Reg::Temp(temp), i);
            }
            let what = match &operand.access {
                Access::Walk(walk) if operand.kept.is_some() && walk.is_single() => {
                    What::Single(walk.offset as usize)
                }
                _ => What::Load,
            };
            text.push(what, &[], operand.format);
        }
        for action in &program.actions {
            let (to, value) = match action {
                Action::Fill { operand, to } => (*to, usize::from(*operand)),
                Action::Copy { from, to } | Action::Spread { from, to } => (*to, held[from]),
                Action::Reduce { reduction, from, by, to } => {
                    let mut of = held[from];
                    if let Some(Multiplied { function, by, .. }) = by {
                        of = text.compute(function, &[of, held[by]], program.format(*from))?;
                    }
                    (*to, text.push(What::Reduce(*reduction), &[of], program.format(*to)))
                }
                Action::Compound(Compound { from, links, to, sums, .. }) => {
                    let mut value = held[from];
                    for (function, other) in links {
                        let args: SmallVec<[usize; 2]> =
                            std::iter::once(value).chain(other.map(|r| held[&r])).collect();
                        value = text.compute(function, &args, program.format(*to))?;
                    }
                    if let Some(sums) = sums {
                        let sum = What::Reduce(Reduction::Sum);
                        held.insert(*sums, text.push(sum, &[value], program.format(*sums)));
                    }
                    (*to, value)
                }
                Action::Compute { function, args, to, .. } => {
                    let args: SmallVec<[usize; 3]> =
                        args.iter().flatten().map(|r| held[r]).collect();
                    (*to, text.compute(function, &args, program.format(*to))?)
                }
            };
            held.insert(to, value);
        }
        text.outs = (0..program.outs.len()).map(|k| held[&Reg::Out(k as u16)]).collect();
        Ok(text)
    }

    /// The number that a function of others is.
    fn compute(
        &mut self,
        function: &Function,
        args: &[usize],
        format: Format,
    ) -> Result<usize, String> {
        let name = |i: usize| args.get(i).map_or("0".to_owned(), |v| format!("v{v}"));
        let value = expression(function, [name(0), name(1), name(2)])?;
        if value.contains("native_") {
            let rows = self.program.row > 1;
            self.header = if rows { Header::NativeRows } else { Header::Native };
        }
        Ok(self.push(What::Compute(value), args, format))
    }

    fn push(&mut self, what: What, args: &[usize], format: Format) -> usize {
        let before = args.iter().map(|&a| self.values[a].pass).max().unwrap_or(0);
        let pass = before + usize::from(matches!(what, What::Reduce(_)));
        self.values.push(Value { what, args: args.into(), format, pass });
        self.values.len() - 1
    }

    /// The operands that are one number.
    fn singles(&self) -> String {
        let mut text = String::new();
        for (i, value) in self.values.iter().enumerate() {
            if let What::Single(offset) = value.what {
                let _ =
                    writeln!(text, "  {} v{i} = *elem(i{i}, {offset});", raw(value.format.size));
            }
        }
        text
    }

    /// What happens to each element.
    fn elements(&self) -> String {
        let mut text = String::new();
        self.needed(&self.outs, &mut text);
        self.store(Per::Element, "n", &mut text);
        text
    }

    /// A loop over the rows, each of which is gone over several times.
    fn rows(&self) -> String {
        let row = self.program.row;
        // Whole warps go on together, as they exchange their lanes: beyond the last row they repeat it.
        let mut text = "  for (u64 some = shl<4>(blockIdx.x); some < rows; some += shl<4>(gridDim.x)) {\n    \
                        u32 own = (u32)some + (threadIdx.x >> 4);\n    bool there = own < rows;\n    \
                        u32 row = there ? own : rows - 1;\n"
            .to_owned();
        let _ = writeln!(text, "    u64 first = stride_mul(row, {row}u);");
        let outer = self.walks(|_| true).filter_map(|(i, w)| Some((i, halves(w, row)?.0)));
        places(&outer.collect::<Vec<_>>(), "row", 'p', &mut text);
        let last = self.values.iter().map(|v| v.pass).max().unwrap_or(0);
        for pass in 0..=last {
            let now = |v: &Value| v.format.per == Per::Row && v.pass == pass;
            let per_row: Vec<usize> = self.numbers(|v| now(v)).collect();
            self.declare(&per_row, &mut text);
            let reduces = |v: &Value| matches!(v.what, What::Reduce(_)) && v.pass == pass + 1;
            let reductions: Vec<usize> = self.numbers(reduces).collect();
            if !reductions.is_empty() {
                self.reduce(&reductions, &mut text);
            }
        }
        let _ = writeln!(text, "    if (there && row_thread() == 0) {{");
        self.store(Per::Row, "row", &mut text);
        let results: Vec<usize> = self.stores(Per::Element).map(|(_, v)| v).collect();
        let _ = writeln!(text, "    }}");
        if !results.is_empty() {
            let _ = writeln!(text, "    PAM_EACH_OF_ROW(e, 0, there ? {row}u : 0) {{");
            let _ = writeln!(text, "    u64 n = first + e;");
            self.needed(&results, &mut text);
            self.store(Per::Element, "n", &mut text);
            let _ = writeln!(text, "    }}");
        }
        text + "  }\n"
    }

    /// One pass over a row.
    fn reduce(&self, reductions: &[usize], text: &mut String) {
        let row = self.program.row;
        let code = |v: usize| match self.values[v].what {
            What::Reduce(reduction) => reduction as u32,
            _ => 0,
        };
        for &v in reductions {
            let _ = writeln!(text, "    u32 v{v} = 0;");
        }
        let _ = writeln!(text, "    PAM_EACH_CHUNK(begin, end, {row}u) {{");
        for &v in reductions {
            let _ = writeln!(text, "    Lane a{v} = start({});", code(v));
        }
        let _ = writeln!(text, "    PAM_EACH_OF_ROW(e, begin, there ? end : begin) {{");
        let _ = writeln!(text, "    u64 n = first + e;");
        let args: Vec<usize> = reductions.iter().map(|&v| self.values[v].args[0]).collect();
        self.needed(&args, text);
        for (&v, arg) in reductions.iter().zip(&args) {
            let _ = writeln!(text, "    take(a{v}, {}, as_float(v{arg}), e - begin);", code(v));
        }
        let _ = writeln!(text, "    }}");
        for &v in reductions {
            let _ = writeln!(text, "    v{v} = next_chunk({}, begin, v{v}, a{v});", code(v));
        }
        let _ = writeln!(text, "    }}");
    }

    /// The numbers of the values that are such.
    fn numbers(&self, such: impl Fn(&Value) -> bool) -> impl Iterator<Item = usize> {
        self.values.iter().enumerate().filter(move |(_, v)| such(v)).map(|(i, _)| i)
    }

    /// The results of that kind and the numbers they are.
    fn stores(&self, per: Per) -> impl Iterator<Item = (usize, usize)> {
        let outs = self.outs.iter().copied().enumerate();
        outs.filter(move |&(k, _)| self.program.outs[k].per == per)
    }

    fn store(&self, per: Per, at: &str, text: &mut String) {
        for (k, v) in self.stores(per) {
            let _ = writeln!(text, "    *elem(o{k}, {at}) = v{v};");
        }
    }

    /// Declares what one element of these values needs.
    fn needed(&self, values: &[usize], text: &mut String) {
        let mut needed = vec![false; self.values.len()];
        values.iter().for_each(|&v| needed[v] = true);
        for v in (0..needed.len()).rev() {
            needed[v] &= self.values[v].format.per == Per::Element;
            if needed[v] {
                self.values[v].args.iter().for_each(|&a| needed[a] = true);
            }
        }
        let needed: Vec<usize> = (0..needed.len()).filter(|&v| needed[v]).collect();
        self.declare(&needed, text);
    }

    /// Declares values, all for the elements or all for the rows.
    fn declare(&self, values: &[usize], text: &mut String) {
        let row = self.program.row;
        let per_row = values.first().is_some_and(|&v| self.values[v].format.per == Per::Row);
        let number = if per_row { "row" } else { "n" };
        let (mut whole, mut inner) = (Vec::new(), Vec::new());
        for (i, walk) in self.walks(|i| values.contains(&i)) {
            match halves(walk, row) {
                Some((_, walk)) if !per_row && row > 1 => inner.push((i, walk)),
                _ => whole.push((i, walk.clone())),
            }
        }
        places(&whole, number, 'w', text);
        places(&inner, "e", 'w', text);
        for &v in values {
            let value = match &self.values[v].what {
                What::Compute(value) => value.clone(),
                What::Load => match &self.program.operands[v].access {
                    Access::InPlace(k) => format!("*elem(o{k}, {number})"),
                    Access::Walk(_) if inner.iter().any(|(i, _)| *i == v) => {
                        format!("*elem(i{v}, p{v} + w{v})")
                    }
                    Access::Walk(_) => format!("*elem(i{v}, w{v})"),
                    _ => format!("*elem(i{v}, {number})"),
                },
                What::Single(_) | What::Reduce(_) => continue,
            };
            let _ = writeln!(text, "    {} v{v} = {value};", raw(self.values[v].format.size));
        }
    }

    /// The operands that are read along strides.
    fn walks(&self, such: impl Fn(usize) -> bool) -> impl Iterator<Item = (usize, &'p Strided)> {
        let operands = self.program.operands.iter().enumerate();
        operands.filter(move |(i, _)| such(*i)).filter_map(|(i, operand)| match &operand.access {
            Access::Walk(walk) => Some((i, walk)),
            _ => None,
        })
    }
}

/// A walk as one over the rows and one over the elements of each row, where a row is a number of its
/// innermost dimensions.
fn halves(walk: &Strided, row: usize) -> Option<(Strided, Strided)> {
    let inner = |d: &usize| walk.dims[*d..].iter().product::<usize>() == row;
    let d = (0..walk.dims.len()).find(inner)?;
    let part = |from: usize, to: usize, offset| Strided {
        dims: walk.dims[from..to].into(),
        strides: walk.strides[from..to].into(),
        offset,
    };
    Some((part(0, d, walk.offset), part(d, walk.dims.len(), 0)))
}

/// Operands and how they are read.
type Walks<'w> = Vec<(usize, &'w Strided)>;

/// Declares for each operand where its element of that number lies, in variables of that name.
fn places(walks: &[(usize, Strided)], number: &str, name: char, text: &mut String) {
    // Operands with the same dimensions share the digits of the number.
    let mut shared: Vec<(&[usize], Walks<'_>)> = Vec::new();
    for (i, walk) in walks {
        match shared.iter_mut().find(|(dims, _)| *dims == walk.dims.as_slice()) {
            Some((_, list)) => list.push((*i, walk)),
            None => shared.push((&walk.dims, vec![(*i, walk)])),
        }
    }
    for (dims, walks) in shared {
        let first = walks[0].0;
        for (i, walk) in &walks {
            let _ = writeln!(text, "    u32 {name}{i} = {}u;", walk.offset as u32);
        }
        let _ = writeln!(text, "    u32 {name}d{first} = (u32){number};");
        for (d, &dim) in dims.iter().enumerate() {
            let weight: usize = dims[d + 1..].iter().product();
            let steps = |walk: &Strided| walk.strides[d] as u32;
            let unit = walks.iter().all(|(_, walk)| steps(walk) <= 1);
            if d + 1 == dims.len() && unit {
                // What is left is the innermost digit.
                for (i, _) in walks.iter().filter(|(_, walk)| steps(walk) == 1) {
                    let _ = writeln!(text, "    {name}{i} += {name}d{first};");
                }
                continue;
            }
            for bit in (0..usize::BITS - (dim - 1).leading_zeros()).rev() {
                let step = weight << bit;
                let _ = write!(
                    text,
                    "    if ({name}d{first} >= {step}u) {{ {name}d{first} -= {step}u;"
                );
                for (i, walk) in &walks {
                    let by = steps(walk).wrapping_shl(bit);
                    if by != 0 {
                        let _ = write!(text, " {name}{i} += {by}u;");
                    }
                }
                let _ = writeln!(text, " }}");
            }
        }
    }
}
