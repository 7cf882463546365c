//! What lies where in an executable.

use super::SECTION;
use object::{Object, ObjectSymbol, ObjectSymbolTable, ReadRef, RelocationTarget, SymbolIndex};
use std::ops::Range;

/// What is known of an executable's addresses. Names are made when they are asked for, since nearly
/// all symbols lie elsewhere.
pub(super) struct Program<'f, 'd, R: ReadRef<'d>> {
    file: &'f object::File<'d, R>,
    /// The section of the kernels.
    pub section: Range<u64>,
    /// The symbols that define something, by their addresses.
    symbols: Vec<(u64, SymbolIndex)>,
    /// What the slots hold through which functions of other crates and libraries are called.
    slots: Vec<(u64, Slot)>,
}

/// What the loader writes into a slot.
#[derive(Clone, Copy)]
enum Slot {
    /// The address of an imported symbol.
    Imported(SymbolIndex),
    /// The address of something in the executable.
    Own(u64),
}

/// A symbol as its path in the source, without hashes.
pub(super) fn plain(symbol: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(symbol))
}

impl<'f, 'd, R: ReadRef<'d>> Program<'f, 'd, R> {
    pub(super) fn read(file: &'f object::File<'d, R>, section: Range<u64>) -> Self {
        let defined = file.symbols().filter(|s| s.is_definition());
        let mut symbols: Vec<(u64, SymbolIndex)> =
            defined.map(|s| (s.address(), s.index())).collect();
        symbols.sort_unstable_by_key(|s| (s.0, s.1.0));
        let slots = file.dynamic_relocations().into_iter().flatten();
        let mut slots: Vec<(u64, Slot)> = slots
            .map(|(slot, relocation)| match relocation.target() {
                RelocationTarget::Symbol(symbol) => (slot, Slot::Imported(symbol)),
                _ => (slot, Slot::Own(relocation.addend() as u64)),
            })
            .collect();
        slots.sort_unstable_by_key(|slot| slot.0);
        Program { file, section, symbols, slots }
    }

    /// The functions of the section, each address once.
    pub(super) fn functions(&self) -> Vec<(u64, String)> {
        let place = |address: u64| self.symbols.partition_point(|s| s.0 < address);
        let inside = &self.symbols[place(self.section.start)..place(self.section.end)];
        let mut functions: Vec<(u64, String)> =
            inside.iter().filter_map(|s| Some((s.0, self.name(s.0)?))).collect();
        functions.dedup_by_key(|f| f.0);
        functions
    }

    /// The name of what begins at an address.
    pub(super) fn name(&self, address: u64) -> Option<String> {
        let first = self.symbols.partition_point(|s| s.0 < address);
        let here = self.symbols[first..].iter().take_while(|s| s.0 == address);
        let names = here.filter_map(|s| self.file.symbol_by_index(s.1).ok()?.name().ok());
        names.filter(|name| !name.is_empty()).map(plain).next()
    }

    /// The name of what is called through a slot.
    pub(super) fn through(&self, slot: u64) -> Option<String> {
        let at = self.slots.binary_search_by_key(&slot, |s| s.0).ok()?;
        match self.slots[at].1 {
            Slot::Imported(symbol) => {
                let symbol = self.file.dynamic_symbol_table()?.symbol_by_index(symbol).ok()?;
                symbol.name().ok().map(plain)
            }
            // Kernels call each other as well.
            Slot::Own(address) if self.section.contains(&address) => Some(SECTION.to_owned()),
            Slot::Own(address) => self.name(address),
        }
    }
}
