//! The folder that holds a hub's `config/`.
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub struct ProjectDir(PathBuf);

impl ProjectDir {
    pub fn path(&self) -> &Path {
        &self.0
    }
}
