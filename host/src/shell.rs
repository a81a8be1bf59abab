//! Words of the commands that psn tells people to type.
use std::path::Path;

/// What no shell reads as anything but itself.
const PLAIN: &[u8] = b"-_./:=@+,%";

/// One word, as a shell reads it back.
pub(crate) fn word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || PLAIN.contains(&b);
    // At the beginning, `=` is a program's path to zsh.
    if !text.is_empty() && !text.starts_with('=') && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A path as one word, which no program takes for an option.
pub(crate) fn path(path: &Path) -> String {
    let text = path.display().to_string();
    word(&if text.starts_with('-') { format!("./{text}") } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_said() {
        let texts = [
            "",
            "plain-1_2.env",
            "a b",
            "it's",
            "$(id)",
            "a\nb",
            "~root",
            "#",
            "*",
            "\\",
            "é",
            "a=b",
            "=ls",
            "--x",
            "''",
        ];
        for text in texts {
            let script = format!("printf %s {}", word(text));
            let said = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), text, "{script}");
        }
    }

    #[test]
    fn a_path_is_no_option() {
        assert_eq!(path(Path::new("-rf")), "./-rf");
        assert_eq!(path(Path::new("--my plan")), "'./--my plan'");
        assert_eq!(path(Path::new("/my hub/it's")), "'/my hub/it'\\''s'");
        assert_eq!(path(Path::new("plan.json")), "plan.json");
    }
}
