use std::collections::BTreeMap;
use std::ffi::OsString;

use psn_bindings::imports::psn::plugin::tool::{Error, Host, Output};

use super::Tools;
use super::capture::{receive, register_passwords};
use super::policy::Allowed;
use super::run::{RunError, run};
use crate::capabilities::View;
use crate::capabilities::captured::{refused, without_url_passwords};
use crate::plugins::manifest::ToolCapture;

/// Bytes of each output stream that a guest gets. What a deployment prints is some KiB.
const MAX_OUTPUT: usize = 256 * 1024;

fn error(code: &str, message: impl Into<String>) -> Error {
    Error { code: code.to_owned(), message: message.into() }
}

impl Host for View<'_, Tools> {
    async fn run(&mut self, name: String, args: Vec<String>) -> wasmtime::Result<Result<Output, Error>> {
        self.call.meter.host_call(1)?;
        let allowed = match self.cap.policy.decide(&name, args) {
            Ok(allowed) => allowed,
            Err(refused) => {
                let message = self.call.redact("a tool's error", &refused.to_string()).into_owned();
                return Ok(Err(error("denied", message)));
            }
        };
        // Secrets are given by environment, where only the program sees them; an argument is seen by everyone on the machine.
        if allowed.args.iter().any(|a| self.call.redactor.finds(a.as_bytes())) {
            self.call.leaked("an argument of a program");
            return Ok(Err(error(
                "denied",
                "an argument holds a secret; name it in the manifest's env for this program instead",
            )));
        }
        let kept = allowed.capture.iter().flat_map(ToolCapture::names);
        if let Err(e) = refused(kept, &self.cap.secrets, &self.cap.keeper) {
            return Ok(Err(error("denied", format!("what it prints could not be kept: {e}"))));
        }
        self.call.meter.tool_call(1)?;
        let Some(program) = self.cap.programs.find(&name) else {
            let install = allowed.install.map_or_else(
                || format!("install `{name}` and make sure that it is on PATH"),
                |i| format!("install it: {i}"),
            );
            return Ok(Err(error("missing", format!("the program `{name}` is not on PATH; {install}"))));
        };
        let env = self.environment(&allowed);
        let until = tokio::time::Instant::from_std(self.call.deadline.at());
        match run(&program, &allowed.args, env, &self.cap.cwd, until).await {
            Ok(mut ran) => {
                let place = format!("the output of {name}");
                if let Err(e) = register_passwords(self.call, [&ran.stdout, &ran.stderr]) {
                    return Ok(Err(error("too-large", format!("`{name}` ran: {e}"))));
                }
                // First, so that what is captured from one stream is not shown by the other.
                let captured = match allowed.capture {
                    None => None,
                    Some(wanted) => {
                        let (secrets, keeper) = (self.cap.secrets.clone(), self.cap.keeper.clone());
                        let stdout = std::mem::take(&mut ran.stdout);
                        let received =
                            receive(self.call, &place, &wanted, ran.exit_code, stdout, &secrets, &keeper).await;
                        match received {
                            Ok(stdout) => Some(stdout),
                            Err(e) => return Ok(Err(error(e.code(), format!("`{name}` ran: {e}")))),
                        }
                    }
                };
                let mut filter = |text: &str| without_url_passwords(&self.call.redact(&place, text)).into_owned();
                let stderr = ran.stderr.shown(MAX_OUTPUT, &mut filter);
                let stdout = captured.unwrap_or_else(|| ran.stdout.shown(MAX_OUTPUT, &mut filter));
                Ok(Ok(Output { exit_code: ran.exit_code, stdout, stderr }))
            }
            Err(e) => {
                let code = if matches!(e, RunError::Deadline) { "deadline" } else { "failed" };
                Ok(Err(error(code, format!("`{name}`: {e}"))))
            }
        }
    }
}

impl View<'_, Tools> {
    /// All that the program gets of the host's environment, and what the manifest names.
    fn environment(&self, allowed: &Allowed) -> BTreeMap<String, OsString> {
        let mut env: BTreeMap<String, OsString> = BTreeMap::new();
        for name in ["HOME", "LANG"] {
            env.extend(std::env::var_os(name).map(|value| (name.to_owned(), value)));
        }
        env.insert("PATH".into(), self.cap.programs.path().to_owned());
        // No prompts, no telemetry.
        env.insert("CI".into(), "1".into());
        env.insert("TRIGGER_TELEMETRY_DISABLED".into(), "1".into());
        for name in &allowed.env {
            // One that is not there yet is left out: the program knows best whether it needs it.
            let value = self
                .cap
                .secrets
                .get(name)
                .map(|s| OsString::from(s.expose()))
                .or_else(|| self.cap.plain.get(name).map(OsString::from));
            env.extend(value.map(|v| (name.clone(), v)));
        }
        for name in &allowed.addresses {
            env.extend(self.cap.plain.get(name).map(|address| (name.clone(), OsString::from(address))));
        }
        env
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::time::Duration;

    use super::super::run::Programs;
    use super::*;
    use crate::capabilities::Deadline;
    use crate::capabilities::testing::{Rig, manifest};

    const TABLES: &str = r#"
[[tool]]
name = "probe"
args = [["script"], ["script", "{}"], ["script", "{}", "{}"]]
env = ["TOKEN", "ADDRESS", "ABSENT"]
install = "npm install --global probe@1"
[[tool]]
name = "broken"
args = [[]]
"#;

    const CAPTURING: &str = r#"
[[tool]]
name = "probe"
args = [["script", "json"], ["script", "text"], ["script", "open"], ["script", "two"]]
addresses = { PROBE_HOST = "neon" }
[[tool.capture]]
args = ["script", "json"]
json = { "/connection_string" = "DATABASE_URL" }
[[tool.capture]]
args = ["script", "two"]
json = { "/key" = "A_KEY", "/absent" = "ABSENT_KEY" }
[[tool.capture]]
args = ["script", "text"]
text = "DATABASE_URL_DIRECT"
"#;

    const URL: &str = "postgresql://owner:npg_canary0006@h/db";

    #[tokio::test]
    async fn what_is_to_be_kept_is_kept_and_not_seen() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            r#"case $1 in
json) echo '{{"connection_string":"{URL}","host":"h","password":"npg_canary0006"}}';;
text) echo; echo '{URL}';;
open) echo '{URL}'; echo 'password: npg_canary0006'; echo "$PROBE_HOST";;
esac
"#
        );
        let mut rig = rig_of(CAPTURING, dir.path(), &script);
        let out = run(&mut rig, &["open"]).await.unwrap();
        assert_eq!(out.stdout, "postgresql://owner:[redacted]@h/db\npassword: [redacted]\nhttp://127.0.0.1:9\n");
        assert!(rig.cap.secrets.get("DATABASE_URL").is_none());

        let out = run(&mut rig, &["json"]).await.unwrap();
        assert_eq!(out.stdout, r#"{"connection_string":"{{secret:DATABASE_URL}}","host":"h","password":"[redacted]"}"#);
        assert_eq!(rig.cap.secrets.get("DATABASE_URL").unwrap().expose(), URL);

        let out = run(&mut rig, &["text"]).await.unwrap();
        assert_eq!(out.stdout, "{{secret:DATABASE_URL_DIRECT}}");
        assert_eq!(rig.cap.secrets.get("DATABASE_URL_DIRECT").unwrap().expose(), URL);
    }

    #[tokio::test]
    async fn what_cannot_be_looked_through_is_withheld() {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = rig_of(CAPTURING, dir.path(), "echo 'password: npg_canary0007'");
        assert_eq!(run(&mut rig, &["json"]).await.unwrap().stdout, "");
        let dir = tempfile::tempdir().unwrap();
        let mut rig = rig_of(CAPTURING, dir.path(), "true");
        assert_eq!(run(&mut rig, &["text"]).await.unwrap().stdout, "");
        assert!(rig.cap.secrets.get("DATABASE_URL_DIRECT").is_none());
        // A program that failed has nothing to keep.
        let dir = tempfile::tempdir().unwrap();
        let mut rig = rig_of(CAPTURING, dir.path(), "echo 'npg_canary0008-and-more'; echo 'it failed' >&2; exit 1");
        let out = run(&mut rig, &["text"]).await.unwrap();
        assert_eq!((out.exit_code, out.stdout.as_str(), out.stderr.as_str()), (1, "", "it failed\n"));
        assert!(rig.cap.secrets.get("DATABASE_URL_DIRECT").is_none());
        let script =
            r#"echo '{"connection_string":"npg_canary0008-and-more"}'; echo 'got npg_canary0008-and-more' >&2; exit 1"#;
        let dir = tempfile::tempdir().unwrap();
        let mut rig = rig_of(CAPTURING, dir.path(), script);
        let out = run(&mut rig, &["json"]).await.unwrap();
        assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", "got [redacted]\n"));
        assert!(rig.cap.secrets.get("DATABASE_URL").is_none());
    }

    #[tokio::test]
    async fn what_is_not_there_or_no_credential_withholds_the_rest() {
        for (printed, kept) in [
            // Where the second one went is not known.
            (r#"{"key":"first-secret-value","other":"npg_canary0009"}"#, true),
            (r#"{"key":"short","absent":"second-secret-value","other":"npg_canary0009"}"#, false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut rig = rig_of(CAPTURING, dir.path(), &format!("echo '{printed}'"));
            assert_eq!(run(&mut rig, &["two"]).await.unwrap().stdout, "");
            assert_eq!(rig.secrets.exists("A_KEY"), kept);
            assert!(rig.warnings().join("; ").contains("was withheld"), "{:?}", rig.warnings());
        }
        let dir = tempfile::tempdir().unwrap();
        let mut rig = rig_of(CAPTURING, dir.path(), "echo needs_consent; echo needs_consent >&2");
        assert_eq!(run(&mut rig, &["text"]).await.unwrap_err().code, "secret-unfit");
        assert!(!rig.call.redactor.finds(b"needs_consent") && !rig.secrets.exists("DATABASE_URL_DIRECT"));
        let many = "yes '[1],' | head -n 150000 | tr -d '\\n'";
        let dir = tempfile::tempdir().unwrap();
        let mut rig = rig_of(CAPTURING, dir.path(), &format!("printf '['; {many}; printf '1]'"));
        assert_eq!(run(&mut rig, &["json"]).await.unwrap_err().code, "too-large");
    }

    #[tokio::test]
    async fn passwords_in_output_are_few_and_no_words() {
        let dir = tempfile::tempdir().unwrap();
        let script = "i=0; while [ $i -lt 17 ]; do echo https://u:password-number-$i@h/; i=$((i+1)); done";
        let mut rig = rig_of(CAPTURING, dir.path(), script);
        let e = run(&mut rig, &["open"]).await.unwrap_err();
        assert!(e.code == "too-large" && e.message.contains("withheld"), "{} {}", e.code, e.message);
        assert!(!rig.call.redactor.finds(b"password-number-1"));
        let dir = tempfile::tempdir().unwrap();
        let script = "for p in short needs_consent long-enough-1 long-enough-1; do echo https://u:$p@h/; echo $p; done";
        let mut rig = rig_of(CAPTURING, dir.path(), script);
        let out = run(&mut rig, &["open"]).await.unwrap();
        let url = "https://u:[redacted]@h/";
        assert_eq!(out.stdout, format!("{url}\nshort\n{url}\nneeds_consent\n{url}\n[redacted]\n{url}\n[redacted]\n"));
    }

    /// A program called `probe` that does what `script` says.
    fn rig(dir: &Path, script: &str) -> Rig<Tools> {
        rig_of(TABLES, dir, script)
    }

    fn rig_of(tables: &str, dir: &Path, script: &str) -> Rig<Tools> {
        // The shell under another name: a file that was just written may not be executable yet while other tests start programs.
        std::os::unix::fs::symlink("/bin/sh", dir.join("probe")).unwrap();
        std::fs::write(dir.join("script"), script).unwrap();
        let mut rig = Rig::with_secrets(|secrets| {
            Tools::new(&manifest(tables), secrets, dir.to_owned()).with_plain_env(
                [
                    ("ADDRESS".into(), "http://127.0.0.1:1".into()),
                    ("TOKEN".into(), "weaker".into()),
                    ("PROBE_HOST".into(), "http://127.0.0.1:9".into()),
                ]
                .into(),
            )
        });
        rig.cap.programs =
            Programs::on_path(Some(std::env::join_paths([dir, Path::new("/usr/bin"), Path::new("/bin")]).unwrap()));
        rig.secret("TOKEN", "tr_pat_canary0005");
        rig
    }

    async fn run(rig: &mut Rig<Tools>, args: &[&str]) -> Result<Output, Error> {
        let args = std::iter::once("script").chain(args.iter().copied()).map(str::to_owned).collect();
        rig.view().run("probe".into(), args).await.unwrap()
    }

    #[tokio::test]
    async fn a_program_gets_its_arguments_a_clean_environment_and_no_input() {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = rig(dir.path(), "printf '%s|' \"$@\"; echo; pwd; cat; env | sort >&2; exit 3");
        let output = run(&mut rig, &["$(id) `id` ; | > x", "*"]).await.unwrap();
        assert_eq!(output.exit_code, 3);
        let cwd = dir.path().canonicalize().unwrap();
        assert_eq!(output.stdout, format!("$(id) `id` ; | > x|*|\n{}\n", cwd.display()));
        let names: Vec<&str> = output
            .stderr
            .lines()
            .filter_map(|l| l.split_once('='))
            .map(|(n, _)| n)
            .filter(|n| !matches!(*n, "HOME" | "LANG" | "PWD" | "OLDPWD" | "SHLVL" | "_"))
            .collect();
        assert_eq!(names, ["ADDRESS", "CI", "PATH", "TOKEN", "TRIGGER_TELEMETRY_DISABLED"]);
        assert!(output.stderr.contains("TOKEN=[redacted]"), "the secret, not the plain value: {}", output.stderr);
        assert_eq!(rig.call.leaks, ["the output of probe"]);
        assert_eq!(rig.call.meter.usage().tool_calls, 1);
    }

    #[tokio::test]
    async fn output_is_bounded_redacted_and_text() {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = rig(
            dir.path(),
            "printf 'begin\\377'; head -c 6000000 /dev/zero | tr '\\0' x; printf \"end $TOKEN\"; printf \"at the end $TOKEN\" >&2",
        );
        let output = run(&mut rig, &[]).await.unwrap();
        assert!(output.stdout.starts_with("begin\u{fffd}xxx"), "{}", &output.stdout[..20]);
        assert!(output.stdout.len() < MAX_OUTPUT + 200 && output.stdout.contains("bytes left out"));
        assert!(output.stdout.ends_with("[the end was not kept]"));
        assert_eq!(output.stderr, "at the end [redacted]");
    }

    #[tokio::test]
    async fn what_runs_in_the_background_ends_with_the_program() {
        let dir = tempfile::tempdir().unwrap();
        // The child holds the output open; unkilled, it would hold up the call.
        let mut rig = rig(dir.path(), "sleep 600 & echo $!");
        let output = run(&mut rig, &[]).await.unwrap();
        let pid = output.stdout.trim();
        assert!(gone(pid).await, "process {pid} is still there");
    }

    #[tokio::test]
    async fn the_deadline_kills_the_whole_group() {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = rig(dir.path(), "trap '' TERM; sleep 600 & echo $! > pid; wait");
        rig.call.deadline = Deadline::after(Duration::from_millis(300));
        let e = run(&mut rig, &[]).await.unwrap_err();
        assert_eq!(e.code, "deadline");
        let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
        assert!(gone(pid.trim()).await, "process {pid} is still there");
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = rig(dir.path(), "sleep 600 & echo $! > pid.new; mv pid.new pid; wait");
        let file = dir.path().join("pid");
        let appeared = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = run(&mut rig, &[]) => panic!("it waits"),
            () = appeared => {}
        }
        let pid = std::fs::read_to_string(file).unwrap();
        assert!(gone(pid.trim()).await, "process {pid} is still there");
    }

    /// Whether the process ends. A zombie that nobody has waited for yet has ended.
    async fn gone(pid: &str) -> bool {
        for _ in 0..500 {
            match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
                Ok(stat) if !stat.contains(") Z ") => tokio::time::sleep(Duration::from_millis(10)).await,
                _ => return true,
            }
        }
        false
    }

    #[tokio::test]
    async fn what_cannot_be_run_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = rig(dir.path(), "kill -9 $$");
        assert_eq!(run(&mut rig, &[]).await.unwrap().exit_code, 137);
        let e = run(&mut rig, &["--evil"]).await.unwrap_err();
        assert!(e.code == "denied" && e.message.contains("[\"script\", \"--evil\"]"), "{}", e.message);
        let e = run(&mut rig, &["tr_pat_canary0005"]).await.unwrap_err();
        assert!(e.code == "denied" && !e.message.contains("canary"), "{}", e.message);
        let broken = dir.path().join("broken");
        std::fs::write(&broken, "no program").unwrap();
        std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(rig.view().run("broken".into(), vec![]).await.unwrap().unwrap_err().code, "failed");
        rig.cap.programs = Programs::on_path(None);
        let e = run(&mut rig, &[]).await.unwrap_err();
        assert_eq!(e.code, "missing");
        assert!(e.message.contains("npm install --global probe@1"), "{}", e.message);
        assert_eq!(rig.view().run("sh".into(), vec![]).await.unwrap().unwrap_err().code, "denied");
    }
}
