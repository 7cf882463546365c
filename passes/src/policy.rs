//! Policies: in which mode each node multiplies.

use crate::lower::Arithmetic;
use pam_ir::graph::{Graph, Node};
use pam_ir::role::{Component, Mode};
use regex::Regex;
use serde::Deserialize;

/// Which nodes an override addresses.
#[derive(Clone, Debug)]
pub enum Selector {
    /// All nodes of a component.
    Component(Component),
    /// All nodes whose name matches.
    Name(Regex),
}

impl Selector {
    /// Reads a component's name or a regular expression between slashes.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Selector, String> {
        if let Some(pattern) = text.strip_prefix('/').and_then(|t| t.strip_suffix('/')) {
            let regex = Regex::new(pattern);
            return regex.map(Selector::Name).map_err(|e| {
                let reason = e.to_string().lines().last().unwrap_or_default().to_owned();
                format!("`{text}` is not a regular expression: {reason}")
            });
        }
        Component::from_name(text).map(Selector::Component).ok_or_else(|| {
            let names: Vec<&str> = Component::ALL.iter().map(|c| c.name()).collect();
            format!("no component `{text}`; there are {} and /regex/", names.join(", "))
        })
    }

    fn matches(&self, node: &Node) -> bool {
        match self {
            Selector::Component(c) => node.component == *c,
            Selector::Name(regex) => regex.is_match(&node.name),
        }
    }
}

/// A mode for some nodes.
#[derive(Clone, Debug)]
pub struct Override {
    /// Which nodes.
    pub selector: Selector,
    /// Their mode.
    pub mode: Mode,
    /// As it was written, for messages.
    pub text: String,
}

/// Where the backward pass comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backward {
    /// The imported one is kept where everything is approximate, and computed anew otherwise.
    #[default]
    Auto,
    /// The imported one is kept.
    Keep,
    /// It is computed anew.
    Regenerate,
}

impl Backward {
    /// Every choice.
    pub const ALL: [Backward; 3] = [Backward::Auto, Backward::Keep, Backward::Regenerate];

    /// The word on the command line and in policy files.
    pub const fn name(self) -> &'static str {
        match self {
            Backward::Auto => "auto",
            Backward::Keep => "keep",
            Backward::Regenerate => "regenerate",
        }
    }
}

/// The approximate product that takes the place of multiplication. All are sums of bit patterns; they
/// differ in the constant that is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Multiplier {
    /// Piecewise affine multiplication.
    #[default]
    Pam,
    /// The L-Mul of "Addition is All You Need" (2024).
    LMul,
}

impl Multiplier {
    /// Every multiplier.
    pub const ALL: [Multiplier; 2] = [Multiplier::Pam, Multiplier::LMul];

    /// The word on the command line and in policy files.
    pub const fn name(self) -> &'static str {
        match self {
            Multiplier::Pam => "pam",
            Multiplier::LMul => "lmul",
        }
    }

    /// The α whose bits are added: 1 for PAM; 1 + 2^−l for L-Mul, with l = m for mantissas of up to 3
    /// bits, 3 for 4, and 4 above.
    pub fn alpha(self, mantissa: u32) -> f32 {
        match (self, mantissa) {
            (Multiplier::Pam, _) => 1.0,
            (Multiplier::LMul, m @ 0..=3) => 1.0 + 0.5f32.powi(m as i32),
            (Multiplier::LMul, 4) => 1.125,
            (Multiplier::LMul, _) => 1.0625,
        }
    }
}

fn word<T: Copy>(all: &[T], name: fn(T) -> &'static str, text: &str) -> Result<T, String> {
    all.iter().copied().find(|&t| name(t) == text).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|&t| name(t)).collect();
        format!("there is no `{text}`; there are {}", names.join(", "))
    })
}

/// How a graph is to multiply.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What it is called in reports.
    pub name: String,
    /// The mode of nodes that no override addresses.
    pub default: Mode,
    /// Exceptions; the last that matches a node wins.
    pub overrides: Vec<Override>,
    /// How many of them the preset brings.
    preset: usize,
    /// Mantissa bits kept in the operands of contractions; 23 keeps all.
    pub mantissa: u32,
    /// `bits(α) − bits(1)` of the error compensation.
    pub offset: i32,
    /// The approximate product.
    pub multiplier: Multiplier,
    /// Where the backward pass comes from.
    pub backward: Backward,
}

/// The form of a policy file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    default: Option<String>,
    mantissa: Option<u32>,
    offset: Option<f32>,
    multiplier: Option<String>,
    backward: Option<String>,
    #[serde(default)]
    set: toml::Table,
}

fn mode(text: &str) -> Result<Mode, String> {
    Mode::from_name(text)
        .ok_or_else(|| format!("no mode `{text}`; there are native, approx and exact"))
}

impl Policy {
    fn uniform(name: &str, default: Mode) -> Policy {
        Policy {
            name: name.to_owned(),
            default,
            overrides: Vec::new(),
            preset: 0,
            mantissa: 23,
            offset: 0,
            multiplier: Multiplier::default(),
            backward: Backward::default(),
        }
    }

    /// A preset: `native`, `approx`, `exact`, `paper` (approx, exact in the loss) or `matmul` (PA in
    /// contractions, the rest native).
    pub fn preset(name: &str) -> Option<Policy> {
        let mut policy = match name {
            "native" | "matmul" => Policy::uniform(name, Mode::Native),
            "approx" | "paper" => Policy::uniform(name, Mode::Approx),
            "exact" => Policy::uniform(name, Mode::Exact),
            _ => return None,
        };
        match name {
            "paper" => policy.set_component(Component::Loss, Mode::Exact),
            "matmul" => policy.set_component(Component::MatMul, Mode::Approx),
            _ => {}
        }
        policy.preset = policy.overrides.len();
        Some(policy)
    }

    fn set_component(&mut self, component: Component, mode: Mode) {
        let text = format!("{component}={mode}");
        self.overrides.push(Override { selector: Selector::Component(component), mode, text });
    }

    /// Reads a policy file; its overrides are in the order of the file:
    ///
    /// ```toml
    /// default = "approx"
    /// mantissa = 23
    /// offset = 1.0
    /// multiplier = "pam"
    /// backward = "auto"
    /// [set]
    /// loss = "native"
    /// "/^head/" = "native"
    /// ```
    ///
    /// # Errors
    /// Says what cannot be read.
    pub fn from_toml(name: &str, text: &str) -> Result<Policy, String> {
        let file: PolicyFile = toml::from_str(text)
            .map_err(|e| e.message().lines().next().unwrap_or("").to_owned())?;
        let default = file.default.as_deref().map_or(Ok(Mode::Approx), mode)?;
        let mut policy = Policy::uniform(name, default);
        if let Some(bits) = file.mantissa {
            policy.set_mantissa(bits)?;
        }
        if let Some(alpha) = file.offset {
            policy.set_offset(alpha)?;
        }
        if let Some(name) = file.multiplier {
            policy.set_multiplier(&name)?;
        }
        if let Some(name) = file.backward {
            policy.set_backward(&name)?;
        }
        for (selector, mode) in &file.set {
            let mode = mode.as_str().ok_or(format!("the mode of `{selector}` is not a string"))?;
            policy.set(&format!("{selector}={mode}"))?;
        }
        Ok(policy)
    }

    /// Adds an override written as `COMPONENT=MODE` or `/regex/=MODE`.
    ///
    /// # Errors
    /// Says what is wrong, also where two overrides contradict each other.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let (selector, mode_text) = text
            .rsplit_once('=')
            .ok_or_else(|| format!("`{text}` is not of the form COMPONENT=MODE"))?;
        let mode = mode(mode_text)?;
        // A preset's own overrides may be overridden, but not what the user has said before.
        let same = |o: &&Override| o.text.rsplit_once('=').is_some_and(|(s, _)| s == selector);
        if let Some(other) = self.overrides[self.preset..].iter().find(same)
            && other.mode != mode
        {
            return Err(format!("`{text}` contradicts `{}`", other.text));
        }
        let selector = Selector::parse(selector)?;
        self.overrides.push(Override { selector, mode, text: text.to_owned() });
        Ok(())
    }

    /// Sets the mantissa bits of contractions.
    ///
    /// # Errors
    /// Where there are none or more than 23.
    pub fn set_mantissa(&mut self, bits: u32) -> Result<(), String> {
        if !(1..=23).contains(&bits) {
            return Err(format!("a mantissa of {bits} bits; there are 1 to 23"));
        }
        self.mantissa = bits;
        Ok(())
    }

    /// Sets the error compensation α.
    ///
    /// # Errors
    /// Where α is not in [1/2, 2).
    pub fn set_offset(&mut self, alpha: f32) -> Result<(), String> {
        if !(0.5..2.0).contains(&alpha) {
            return Err(format!("an offset of {alpha}; it must be at least 0.5 and below 2"));
        }
        self.offset = alpha.to_bits().wrapping_sub(0x3F80_0000) as i32;
        Ok(())
    }

    /// Sets the approximate product by its name.
    ///
    /// # Errors
    /// Where there is none of this name.
    pub fn set_multiplier(&mut self, name: &str) -> Result<(), String> {
        self.multiplier = word(&Multiplier::ALL, Multiplier::name, name)?;
        Ok(())
    }

    /// Sets where the backward pass comes from, by its name.
    ///
    /// # Errors
    /// Where there is no such choice.
    pub fn set_backward(&mut self, name: &str) -> Result<(), String> {
        self.backward = word(&Backward::ALL, Backward::name, name)?;
        Ok(())
    }

    /// `bits(α) − bits(1)` of all products: that of the error compensation, or else of the multiplier.
    ///
    /// # Errors
    /// Where both ask for something.
    pub fn total_offset(&self) -> Result<i32, String> {
        let alpha = self.multiplier.alpha(self.mantissa);
        match (self.offset, alpha.to_bits().wrapping_sub(0x3F80_0000) as i32) {
            (offset, 0) => Ok(offset),
            (0, own) => Ok(own),
            _ => {
                let name = self.multiplier.name();
                Err(format!("an offset contradicts the multiplier {name}, which has its own"))
            }
        }
    }

    /// The mode of a node.
    pub fn mode(&self, node: &Node) -> Mode {
        let last = self.overrides.iter().rev().find(|o| o.selector.matches(node));
        last.map_or(self.default, |o| o.mode)
    }

    /// Whether some nodes may stay native.
    pub fn keeps_native(&self) -> bool {
        self.default == Mode::Native || self.overrides.iter().any(|o| o.mode == Mode::Native)
    }

    /// Whether some nodes may have exact derivatives.
    pub(crate) fn wants_exact(&self) -> bool {
        self.default == Mode::Exact || self.overrides.iter().any(|o| o.mode == Mode::Exact)
    }

    pub(crate) fn arithmetic(&self) -> Result<Arithmetic, String> {
        Ok(Arithmetic::Pam { offset: self.total_offset()?, mantissa: self.mantissa })
    }

    /// Gives every node its mode; how many nodes each override decided.
    pub(crate) fn assign(&self, graph: &mut Graph) -> Vec<usize> {
        let mut caught = vec![0; self.overrides.len()];
        for node in &mut graph.nodes {
            let decided = self.overrides.iter().rposition(|o| o.selector.matches(node));
            node.mode = decided.map_or(self.default, |i| self.overrides[i].mode);
            if let Some(i) = decided {
                caught[i] += 1;
            }
        }
        caught
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading() {
        let policy = Policy::from_toml("p", "offset = 1.0625\n[set]\nloss = \"native\"").unwrap();
        assert_eq!((policy.default, policy.offset), (Mode::Approx, 0x0008_0000));
        assert!(policy.keeps_native());
        assert!(Policy::from_toml("p", "[set]\nlos = \"native\"").is_err());
        assert!(Policy::from_toml("p", "defualt = \"native\"").is_err());
        let text = "[set]\nother = \"native\"\n\"/head/\" = \"approx\"\nloss = \"native\"";
        let policy = Policy::from_toml("p", text).unwrap();
        let order: Vec<&str> = policy.overrides.iter().map(|o| o.text.as_str()).collect();
        assert_eq!(order, ["other=native", "/head/=approx", "loss=native"]);
        let mut policy = Policy::preset("paper").unwrap();
        policy.set("loss=approx").unwrap();
        assert!(policy.set("loss=native").unwrap_err().contains("contradicts"));
        let mut policy = Policy::preset("approx").unwrap();
        assert!(policy.set("/(/=native").unwrap_err().contains("regular expression"));
        assert!(policy.set("loss=natve").is_err());
        assert!(policy.set("loss").is_err());
        assert!(policy.set_mantissa(0).is_err());
        assert!(policy.set_offset(f32::NAN).is_err());
        assert!(Policy::preset("none").is_none());
    }
}
