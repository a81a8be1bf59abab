//! Command-line programs that the manifest names, with the arguments that it allows.

use std::fmt;

use crate::sys;

#[derive(Debug, Clone)]
pub struct Output {
    pub exit_code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn is_success(&self) -> bool {
        self.exit_code == 0
    }

    /// The last lines that were printed, standard error first: where programs say why they stopped.
    pub fn last_words(&self, lines: usize) -> String {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<_> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(lines).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

#[derive(Debug, Clone)]
pub struct Error {
    /// denied, missing, failed, deadline, or a later one.
    pub code: String,
    /// For `missing`, how to install the program.
    pub message: String,
    pub(crate) tool: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "The program `{}` could not be run: {}", self.tool, self.message)
    }
}

impl std::error::Error for Error {}

/// An exit code other than 0 is no error here: programs use it to answer.
pub fn run(name: &str, args: &[&str]) -> Result<Output, Error> {
    sys::tool_run(name, args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words() {
        let output = |stdout: &str, stderr: &str| Output { exit_code: 1, stdout: stdout.into(), stderr: stderr.into() };
        assert_eq!(output("a\nb", "c\n\nd\n").last_words(1), "d");
        assert_eq!(output("a\nb", "c\n\nd\n").last_words(5), "c\nd");
        assert_eq!(output("a\nb\n", " \n").last_words(1), "b");
    }
}
