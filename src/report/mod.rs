//! What a compilation says about itself: the report's content as the JSON schema has it.
//!
//! [`json`] gathers it, [`terminal`] prints it on one screen, [`html`] makes a page of it; [`changes`] is
//! what became of each node. Keys are only
//! ever added to the JSON form; its schema stands in docs/report.md.

pub mod changes;
pub mod counts;
pub mod html;
pub mod json;
pub mod terminal;

/// A number with its thousands apart, as people read it.
pub fn grouped(n: u128) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_stand_apart() {
        assert_eq!(super::grouped(0), "0");
        assert_eq!(super::grouped(999), "999");
        assert_eq!(super::grouped(1_234_567), "1 234 567");
    }
}
