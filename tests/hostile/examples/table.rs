//! Writes the suite's table into docs/security.md; scripts/hostile-table.sh runs it.
#![forbid(unsafe_code)]

fn main() -> std::io::Result<()> {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security.md");
    let text = std::fs::read_to_string(&file)?;
    let replaced = psn_hostile::table::replaced(&text)
        .ok_or_else(|| std::io::Error::other("docs/security.md has lost the lines between which the table stands"))?;
    std::fs::write(&file, replaced)
}
