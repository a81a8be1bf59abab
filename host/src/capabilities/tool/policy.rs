//! Which programs a plugin may run, with which arguments, and which names their environment may hold.
use crate::capabilities::clean::quoted;
use crate::plugins::manifest::{Manifest, Tool, ToolCapture};
use crate::plugins::withheld::{POLICY_TOML, Wish, Withheld};
use crate::secret::is_secret_name;

/// In an argument shape, stands for one argument.
const FREE: &str = "{}";

/// Bytes of one free argument.
const MAX_ARGUMENT: usize = 4 * 1024;

/// Arguments of one run; a shape cannot be longer than a person reads.
const MAX_ARGUMENTS: usize = 64;

/// Beginnings of names that make a program load or run something else than it says. What a plugin captures could stand under them.
const STEERING: &[&str] = &[
    "LD_",
    "DYLD_",
    "NODE_",
    "BUN_",
    "DENO_",
    "NPM_",
    "PYTHON",
    "PERL",
    "RUBY",
    "JAVA_",
    "_JAVA_",
    "JDK_",
    "GIT_",
    "SSH_",
    "BASH_",
    "ZDOTDIR",
    "PROMPT_",
    "GCONV_",
    "GLIBC_",
    "MALLOC_",
    "DOTENV_",
    "XDG_",
    "LUA_",
    "PSQL",
    "ESBUILD_",
    "RUSTC",
    "RUSTFLAGS",
    "CARGO_",
    "CURL_",
    "YARN_",
    "PNPM_",
    "COREPACK_",
];

/// Names that do so as a whole, or that the host sets.
const RESERVED: &[&str] = &[
    "PATH",
    "HOME",
    "LANG",
    "CI",
    "ENV",
    "IFS",
    "SHELL",
    "SHELLOPTS",
    "PS4",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "BROWSER",
    "TMPDIR",
    "USER",
    "LOGNAME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "SSLKEYLOGFILE",
    "MAKEFLAGS",
    "GNUMAKEFLAGS",
    "MAKEFILES",
    "LESS",
    "LESSOPEN",
    "LESSCLOSE",
    "LESSKEY",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "GOFLAGS",
    "GOPROXY",
    "GOENV",
    "PGSYSCONFDIR",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGPASSFILE",
    "PGOPTIONS",
    "PGHOST",
    "PGHOSTADDR",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_CERT_PATH",
    "WGETRC",
    "INPUTRC",
    "TERMINFO",
];

#[derive(Debug)]
pub(super) struct Policy {
    tools: Vec<Tool>,
    /// What the operator's policy took away: a denial then names its line.
    withheld: Vec<Withheld>,
}

/// A program and arguments that the manifest allows.
#[derive(Debug)]
pub(super) struct Allowed {
    pub(super) args: Vec<String>,
    /// Names that the environment holds besides the host's own.
    pub(super) env: Vec<String>,
    /// Names that hold the address of a service, where there is one to tell.
    pub(super) addresses: Vec<String>,
    pub(super) capture: Option<ToolCapture>,
    pub(super) install: Option<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the program {} is not granted; this would allow the run:\n{allow}", quoted(.name))]
    Program { name: String, allow: String },
    #[error(
        "`{name}` may not be run with these arguments; the manifest line args = [{allow}] under name = \"{name}\" would allow it"
    )]
    Arguments { name: String, allow: String },
    #[error("the program {} is not allowed by the operator's policy; in {POLICY_TOML}, {line} would allow it", quoted(.name))]
    Policy { name: String, line: String },
    #[error("the manifest's program {} is not a plain name to be found on PATH", quoted(.0))]
    NotAName(String),
    #[error("the manifest's env entry {} cannot be given to a program: it is no secret's name, or changes what a program loads", quoted(.0))]
    Environment(String),
    #[error("the manifest's capture name {} is not a secret's name", quoted(.0))]
    Capture(String),
}

impl Policy {
    pub(super) fn new(manifest: &Manifest) -> Self {
        Self { tools: manifest.tool.clone(), withheld: manifest.withheld.clone() }
    }

    pub(super) fn decide(&self, name: &str, args: Vec<String>) -> Result<Allowed, Refused> {
        let mut named = self.tools.iter().filter(|t| t.name == name).peekable();
        if named.peek().is_none() {
            if let Some(w) = self.withheld.iter().find(|w| matches!(&w.wish, Wish::Tool(tool) if tool == name)) {
                return Err(Refused::Policy { name: name.to_owned(), line: w.line.clone() });
            }
            return Err(Refused::Program {
                name: name.to_owned(),
                allow: format!("[[tool]]\nname = \"{}\"\nargs = [{}]", name.escape_debug(), shape_line(&args)),
            });
        }
        if !is_plain_name(name) {
            return Err(Refused::NotAName(name.to_owned()));
        }
        let shape_of = |t: &Tool| t.args.iter().find(|shape| fits(shape, &args)).cloned();
        let Some((tool, shape)) = named.find_map(|t| Some((t, shape_of(t)?))) else {
            let granted = self
                .tools
                .iter()
                .filter(|t| t.name == name)
                .flat_map(|t| &t.args)
                .map(|s| format!("{s:?}, "))
                .collect::<String>();
            return Err(Refused::Arguments { name: name.to_owned(), allow: format!("{granted}{}", shape_line(&args)) });
        };
        if let Some(bad) =
            tool.env.iter().chain(tool.addresses.keys()).find(|n| {
                !is_secret_name(n) || RESERVED.contains(&n.as_str()) || STEERING.iter().any(|s| n.starts_with(s))
            })
        {
            return Err(Refused::Environment(bad.clone()));
        }
        let capture = tool.capture.iter().find(|capture| capture.args == shape).cloned();
        if let Some(bad) = capture.iter().flat_map(ToolCapture::names).find(|name| !is_secret_name(name)) {
            return Err(Refused::Capture(bad.clone()));
        }
        Ok(Allowed {
            args,
            env: tool.env.clone(),
            addresses: tool.addresses.keys().cloned().collect(),
            capture,
            install: tool.install.clone(),
        })
    }
}

fn fits(shape: &[String], args: &[String]) -> bool {
    shape.len() == args.len()
        && args.len() <= MAX_ARGUMENTS
        && shape.iter().zip(args).all(|(wanted, arg)| {
            if wanted == FREE {
                !arg.is_empty() && !arg.starts_with('-') && arg.len() <= MAX_ARGUMENT && !arg.contains(char::is_control)
            } else {
                wanted == arg && !arg.contains('\0')
            }
        })
}

fn is_plain_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b))
}

/// The arguments as a line of a manifest, short.
fn shape_line(args: &[String]) -> String {
    let args: Vec<_> = args
        .iter()
        .take(MAX_ARGUMENTS)
        .map(|a| format!("\"{}\"", crate::capabilities::clean::cut(a, 100).escape_debug()))
        .collect();
    format!("[{}]", args.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::testing::manifest;

    fn decide(tables: &str, name: &str, args: &[&str]) -> Result<Allowed, Refused> {
        Policy::new(&manifest(tables)).decide(name, args.iter().map(|a| (*a).to_owned()).collect())
    }

    const TRIGGER: &str = "[[tool]]\nname = \"trigger\"\nargs = [[\"deploy\", \"--env\", \"prod\"], [\"whoami\"], [\"promote\", \"{}\", \"--env\", \"{}\"]]\nenv = [\"TRIGGER_ACCESS_TOKEN\"]\n";

    #[test]
    fn arguments_have_one_of_the_shapes() {
        for (args, allowed) in [
            (["deploy", "--env", "prod"].as_slice(), true),
            (&["whoami"], true),
            (&["promote", "20261122.1", "--env", "prod"], true),
            (&[], false),
            (&["deploy"], false),
            (&["deploy", "--env", "staging"], false),
            (&["deploy", "--env", "prod", "--force"], false),
            (&["promote", "--all", "--env", "prod"], false),
            (&["promote", "", "--env", "prod"], false),
            (&["promote", "-x", "--env", "prod"], false),
            (&["promote", "a\nb", "--env", "prod"], false),
            (&["promote", "a\0b", "--env", "prod"], false),
            (&["{}"], false),
            (&["whoami;", "id"], false),
        ] {
            let result = decide(TRIGGER, "trigger", args);
            assert_eq!(result.is_ok(), allowed, "{args:?}: {result:?}");
        }
        let long = "x".repeat(MAX_ARGUMENT + 1);
        assert!(decide(TRIGGER, "trigger", &["promote", &long, "--env", "prod"]).is_err());
    }

    #[test]
    fn a_denial_names_the_line_that_would_allow_the_run() {
        let e = decide(TRIGGER, "trigger", &["whoami", "-v"]).unwrap_err().to_string();
        assert!(e.contains(r#"["whoami"], ["promote", "{}", "--env", "{}"], ["whoami", "-v"]]"#), "{e}");
        let e = decide(TRIGGER, "curl", &["https://evil.example"]).unwrap_err().to_string();
        assert!(e.contains("[[tool]]\nname = \"curl\"\nargs = [[\"https://evil.example\"]]"), "{e}");
    }

    #[test]
    fn programs_are_plain_names() {
        for name in ["/bin/sh", "../sh", "./sh", "a/b", "-sh", ".sh", "sh sh", "sh\\x", "C:sh"] {
            let tables = format!("[[tool]]\nname = {name:?}\nargs = [[]]\n");
            assert_eq!(decide(&tables, name, &[]).unwrap_err(), Refused::NotAName(name.into()));
        }
    }

    #[test]
    fn the_environment_holds_nothing_that_steers_a_program() {
        for (name, fine) in [
            ("TRIGGER_ACCESS_TOKEN", true),
            ("NEON_API_KEY", true),
            ("LD_PRELOAD", false),
            ("DYLD_INSERT_LIBRARIES", false),
            ("NODE_OPTIONS", false),
            ("PATH", false),
            ("HOME", false),
            ("BASH_ENV", false),
            ("GIT_SSH_COMMAND", false),
            ("HTTPS_PROXY", false),
            ("PYTHONPATH", false),
            ("PGPASSWORD", true),
            ("DOCKER_PASSWORD", true),
            ("_JAVA_OPTIONS", false),
            ("LUA_INIT", false),
            ("MAKEFLAGS", false),
            ("PSQLRC", false),
            ("LESSOPEN", false),
            ("ESBUILD_BINARY_PATH", false),
            ("RUSTC_WRAPPER", false),
            ("GOFLAGS", false),
            ("CURL_HOME", false),
            ("CURL_CA_BUNDLE", false),
            ("SSLKEYLOGFILE", false),
            ("PGSYSCONFDIR", false),
            ("DOCKER_HOST", false),
            ("not a name", false),
            ("npm_config_prefix", false),
        ] {
            let tables = format!("[[tool]]\nname = \"trigger\"\nargs = [[]]\nenv = [{name:?}]\n");
            assert_eq!(decide(&tables, "trigger", &[]).is_ok(), fine, "{name}");
        }
    }
}
