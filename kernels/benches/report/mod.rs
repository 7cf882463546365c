//! Where results are written.

use std::path::PathBuf;

/// Writes lines as a JSON list to that file of target/bench; without success the program ends with 2.
pub fn write(name: &str, lines: &[String]) {
    let folder = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
        .join("bench");
    let file = folder.join(name);
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    match std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, text)) {
        Ok(()) => println!("wrote {}", file.display()),
        Err(e) => {
            eprintln!("cannot write {}: {e}", file.display());
            std::process::exit(2);
        }
    }
}
