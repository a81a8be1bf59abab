//! No secret of the whole path shows: in no output, no log, no argument list, no file that others can read; in no encoding.
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use psn_tests::{Answer, Machine};

/// A value and the forms it may hide in.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![value.as_bytes().to_vec(), hex::encode(value).into_bytes()];
    let percent = utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
    forms.push(percent.to_lowercase().into_bytes());
    forms.push(percent.into_bytes());
    let json = serde_json::Value::from(value).to_string();
    forms.push(json.as_bytes()[1..json.len() - 1].to_vec());
    for offset in 0..3 {
        let padded = [&vec![b'x'; offset][..], value.as_bytes()].concat();
        let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&padded);
        // Without the characters at either end that other bytes take part in.
        forms.push(encoded.as_bytes()[(offset * 8).div_ceil(6)..padded.len() * 8 / 6].to_vec());
    }
    forms
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

/// The argument lists of all processes, as anybody on the machine can read them.
fn argument_lists(seen: &mut BTreeSet<Vec<u8>>) {
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit())
            && let Ok(line) = std::fs::read(entry.path().join("cmdline"))
        {
            seen.insert(line);
        }
    }
}

#[test]
fn no_secret_of_the_whole_path_shows_anywhere() {
    let m = Machine::new(env!("CARGO_BIN_EXE_psn-tested"));
    let done = Arc::new(AtomicBool::new(false));
    let watcher = {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                argument_lists(&mut seen);
                std::thread::sleep(std::time::Duration::from_millis(3));
            }
            seen
        })
    };
    let run = |args: &[&str]| {
        let child = m.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("psn starts");
        Answer::of(child.wait_with_output().expect("psn ends"))
    };
    let answers = [
        run(&["run", "setup"]).exits(0),
        run(&["run", "setup"]).exits(0),
        run(&["run", "validate"]).exits(0),
        run(&["run", "watchdog"]).exits(0),
        run(&["status"]).exits(0),
        run(&["keys", "list"]).exits(0),
        run(&["local", "status"]).exits(0),
        run(&["local", "logs", "--lines", "1000"]).exits(0),
    ];
    done.store(true, Ordering::Relaxed);
    let arguments = watcher.join().expect("the watcher");

    let mut secrets: Vec<(String, String)> = Vec::new();
    for name in [
        "NEON_API_KEY",
        "TRIGGER_ACCESS_TOKEN",
        "HUB_ENCRYPTION_KEY",
        "DATABASE_URL",
        "DATABASE_URL_DIRECT",
        "DATABASE_URL_APP",
        "DATABASE_URL_PLUGIN_WATCHDOG",
        "TRIGGER_SECRET_KEY",
    ] {
        let value = m.secret(name).unwrap_or_else(|| panic!("setup makes {name}"));
        if let Ok(url) = url::Url::parse(&value) {
            secrets.push((format!("the password of {name}"), url.password().expect("a password").to_owned()));
        }
        secrets.push((name.to_owned(), value));
    }

    let mut searched = 0;
    for (name, value) in &secrets {
        for form in forms(value) {
            for answer in &answers {
                assert!(!holds(answer.stdout.as_bytes(), &form), "{name} on standard output");
                assert!(!holds(answer.stderr.as_bytes(), &form), "{name} on standard error");
            }
            for line in &arguments {
                assert!(!holds(line, &form), "{name} in an argument list");
            }
            searched += 1;
        }
    }
    assert!(searched >= 8 * 8);

    // Files: the env files are the owner's alone; what others can read, and every log, holds no secret.
    for file in m.files() {
        let private = std::fs::metadata(&file).is_ok_and(|meta| meta.permissions().mode() & 0o077 == 0)
            || folders_are_private(&m, &file);
        let is_log = file.components().any(|c| c.as_os_str() == "logs") || file.extension().is_some_and(|e| e == "log");
        if private && !is_log {
            continue;
        }
        let bytes = m.read(&file);
        for (name, value) in &secrets {
            for form in forms(value) {
                assert!(!holds(&bytes, &form), "{name} in {}", file.display());
            }
        }
    }
    for file in ["config/hub.env", "config/keys.env"] {
        let mode = std::fs::metadata(m.project().join(file)).expect("setup made it").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

/// Whether a folder above keeps others out.
fn folders_are_private(m: &Machine, file: &std::path::Path) -> bool {
    file.ancestors()
        .skip(1)
        .take_while(|dir| dir.starts_with(m.root()) && *dir != m.root())
        .any(|dir| std::fs::metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o001 == 0))
}
