//! Notices when the pages are built: they are embedded at compile time and may be missing.

use std::path::Path;

fn main() {
    // What isn't there can't be watched, so the folder (which git ignores) is made if need be. Where that can't be
    // done, the sources are read-only and nobody will build pages in them.
    let dist = Path::new("web/dist");
    if dist.exists() || std::fs::create_dir_all(dist).is_ok() {
        println!("cargo::rerun-if-changed={}", dist.display());
    }
    println!("cargo::rerun-if-changed=build.rs");
}
