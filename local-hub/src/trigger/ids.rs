//! Ids in the vendor's forms.

/// Enough that two never meet: 25 characters of 36 are 129 bits.
const FRIENDLY_LEN: usize = 25;

/// `run_…`, `deployment_…`, `sched_…`: prefix, underscore, 25 lower-case letters and digits.
pub(crate) fn friendly(prefix: &str) -> String {
    format!("{prefix}_{}", random(b"0123456789abcdefghijklmnopqrstuvwxyz", FRIENDLY_LEN))
}

/// The form of a database id (a cuid): `c` and 24 lower-case letters and digits.
pub(crate) fn cuid() -> String {
    format!("c{}", random(b"0123456789abcdefghijklmnopqrstuvwxyz", 24))
}

/// `proj_` and 20 lower-case letters.
pub(crate) fn project_ref() -> String {
    format!("proj_{}", random(b"abcdefghijklmnopqrstuvwxyz", 20))
}

pub(crate) fn short_code() -> String {
    random(b"1234567890abcdefghijklmnopqrstuvwxyz", 8)
}

/// The name in lower case with dashes, and four characters so that equal names differ.
pub(crate) fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let base = slug.trim_end_matches('-');
    let suffix = random(b"0123456789abcdefghijklmnopqrstuvwxyz", 4);
    if base.is_empty() { format!("project-{suffix}") } else { format!("{base}-{suffix}") }
}

fn random(alphabet: &[u8], len: usize) -> String {
    // The largest multiple of the alphabet's size that a byte can hold: bytes above it would favour the first letters.
    let limit = 256 - 256 % alphabet.len();
    let mut out = String::with_capacity(len);
    let mut buf = [0u8; 64];
    while out.len() < len {
        getrandom::fill(&mut buf).expect("the operating system gives random bytes");
        for byte in buf.iter().map(|b| usize::from(*b)).filter(|b| *b < limit) {
            if out.len() == len {
                break;
            }
            out.push(char::from(alphabet[byte % alphabet.len()]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_vendors_forms() {
        let run = friendly("run");
        assert!(run.starts_with("run_") && run.len() == 29, "{run}");
        let project = project_ref();
        assert!(project.len() == 25 && project[5..].bytes().all(|b| b.is_ascii_lowercase()), "{project}");
        assert_ne!(friendly("run"), friendly("run"));
    }

    #[test]
    fn slugs_are_safe_in_a_path() {
        for (name, start) in [("psn hub", "psn-hub-"), ("  Ünï & Co! ", "n-co-"), ("日本", "project-")] {
            let slug = slug(name);
            assert!(slug.starts_with(start), "{name:?} became {slug}");
            assert!(slug.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{slug}");
        }
    }
}
