//! Compiled kernels, kept under the user's cache folder by the hash of everything that made them.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::source::{HEADERS, OPTIONS, Source};

/// Where compiled kernels are kept: `$XDG_CACHE_HOME/pam-compile/cubin`, or the same below
/// `~/.cache`; `None` without a home.
pub fn folder() -> Option<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    Some(base.join("pam-compile").join("cubin"))
}

/// The hash of a source, its headers, the options and the architecture, as hexadecimal digits.
pub fn key(source: &Source, arch: &str) -> String {
    let mut hash = Sha256::new();
    let texts = HEADERS.iter().flat_map(|(name, text)| [*name, *text]);
    for part in texts.chain(OPTIONS.iter().copied()).chain([&*source.name, &*source.text, arch]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The machine code of a source, if it has been compiled before.
pub fn read(folder: &Path, key: &str) -> Option<Vec<u8>> {
    std::fs::read(folder.join(format!("{key}.cubin"))).ok().filter(|bytes| !bytes.is_empty())
}

/// Keeps machine code for the next time, unless it is there already. A cache that cannot be written is no error: the kernels
/// are compiled again. The file appears whole or not at all.
pub fn keep(folder: &Path, key: &str, code: &[u8]) {
    if folder.join(format!("{key}.cubin")).exists() {
        return;
    }
    let _ = std::fs::create_dir_all(folder);
    let temporary = folder.join(format!("{key}.{}.part", std::process::id()));
    if std::fs::write(&temporary, code).is_ok()
        && std::fs::rename(&temporary, folder.join(format!("{key}.cubin"))).is_err()
    {
        let _ = std::fs::remove_file(&temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::source::sources;

    #[test]
    fn the_key_depends_on_source_and_architecture() {
        let all: Vec<String> = sources()
            .iter()
            .flat_map(|source| ["sm_80", "sm_90a"].map(|arch| key(source, arch)))
            .collect();
        let mut distinct = all.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), all.len());
        assert!(all.iter().all(|key| key.len() == 64));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        assert_eq!(read(&below, "k"), None);
        keep(&below, "k", b"code");
        assert_eq!(read(&below, "k").as_deref(), Some(&b"code"[..]));
        assert_eq!(std::fs::read_dir(&below).unwrap().count(), 1);
    }
}
