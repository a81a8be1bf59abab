use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

use super::*;

fn redactor(value: &str) -> Redactor {
    let r = Redactor::new();
    r.register(&Secret::new(value));
    r
}

/// Every form in which a value may be written. `spelling` chooses which of its characters are escaped, and how.
fn forms(value: &str, spelling: &[u8]) -> Vec<String> {
    let escaped = |how: &dyn Fn(u8, char) -> String| -> String {
        let mut spelling = spelling.iter().copied().cycle();
        value.chars().map(|c| how(spelling.next().unwrap_or_default(), c)).collect()
    };
    let percent = |c: char, upper: bool| -> String {
        let mut buffer = [0; 4];
        let bytes = c.encode_utf8(&mut buffer).bytes();
        bytes.map(|b| if upper { format!("%{b:02X}") } else { format!("%{b:02x}") }).collect()
    };
    let units = |c: char| -> String {
        let mut buffer = [0; 2];
        c.encode_utf16(&mut buffer).iter().map(|u| format!("\\u{u:04x}")).collect()
    };
    let partly_percent = escaped(&|s, c| match s % 3 {
        0 if c != '%' => c.to_string(),
        1 => percent(c, true),
        _ => percent(c, false),
    });
    let partly_json = escaped(&|s, c| match s % 3 {
        0 if c != '\\' && c != '"' && !c.is_control() => c.to_string(),
        1 if c == '/' || c == '"' || c == '\\' => format!("\\{c}"),
        _ => units(c),
    });
    let partly_entity = escaped(&|s, c| match s % 3 {
        0 if c != '&' => c.to_string(),
        1 => format!("&#{};", c as u32),
        _ => format!("&#x{:X};", c as u32),
    });
    let hex = hex::encode(value);
    let mixed: String = hex
        .char_indices()
        .map(|(i, c)| {
            if spelling.get(i % spelling.len().max(1)).is_some_and(|s| s % 2 == 0) { c.to_ascii_uppercase() } else { c }
        })
        .collect();
    let twice = utf8_percent_encode(&partly_json, NON_ALPHANUMERIC).to_string();
    let mut all = vec![
        value.to_owned(),
        utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
        url::form_urlencoded::byte_serialize(value.as_bytes()).collect(),
        serde_json::Value::from(value).to_string(),
        twice,
        partly_percent,
        partly_json,
        partly_entity,
        hex.to_uppercase(),
        mixed,
        hex,
    ];
    for before in ["", "a", "ab"] {
        for after in ["", "z", "zz"] {
            let text = format!("{before}{value}{after}");
            for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
                all.push(engine.encode(&text));
            }
            all.push(utf8_percent_encode(&STANDARD.encode(&text), NON_ALPHANUMERIC).to_string());
        }
    }
    all
}

/// Whether the value is in there for someone who decodes everything. Not the redactor's own way of looking.
fn recoverable(text: &str, value: &str) -> bool {
    let percent = percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let json = serde_json::from_str::<String>(&format!("\"{text}\"")).unwrap_or_default();
    let hex = text.find(|c: char| c.is_ascii_hexdigit()).map(|at| {
        let digits: String = text[at..].chars().take_while(char::is_ascii_hexdigit).collect();
        String::from_utf8_lossy(&hex::decode(&digits).unwrap_or_default()).into_owned()
    });
    [text, &percent, &json, hex.as_deref().unwrap_or_default()].iter().any(|t| t.contains(value))
}

#[test]
fn every_form_is_found_and_replaced() {
    for value in [
        "napi_k3y/with \"quotes\"+and=more",
        "tr_pat_0123456789abcdef",
        "späßig-€uro-\u{1f600}key",
        "12345678",
        "100%sure%41key\\n",
    ] {
        let r = redactor(value);
        for spelling in [&[0u8, 1, 2][..], &[1], &[2], &[2, 0, 0, 1]] {
            for form in forms(value, spelling) {
                assert!(r.finds(form.as_bytes()), "{form} came through");
                let text = format!("<<{form}>>");
                let clean = r.redact(&text);
                assert!(
                    clean.contains(REDACTED) && clean.starts_with("<<") && clean.ends_with(">>"),
                    "{form}: {clean}"
                );
                assert!(!r.finds(clean.as_bytes()) && !recoverable(&clean, value), "{form}: {clean}");
            }
        }
    }
}

#[test]
fn a_url_is_replaced_as_one_and_its_parts_too() {
    let r = redactor("postgresql://owner:npg_s3cret%2Fpart@127.0.0.1:5432/hub");
    assert_eq!(r.redact("at postgresql://owner:npg_s3cret%2Fpart@127.0.0.1:5432/hub now"), "at [redacted] now");
    for part in ["npg_s3cret%2Fpart", "npg_s3cret/part", "npg_s3cret%2fpart", "owner:npg_s3cret/part"] {
        assert_eq!(r.redact(&format!("password {part}!")), "password [redacted]!");
    }
    let basic = STANDARD.encode("owner:npg_s3cret/part");
    assert!(!r.redact(&format!("Basic {basic}")).contains(&basic[4..basic.len() - 4]));
}

#[test]
fn overlapping_secrets_leave_nothing_of_either() {
    let r = redactor("first-half-shared");
    r.register(&Secret::new("shared-second-half"));
    assert_eq!(r.redact("a first-half-shared-second-half b"), "a [redacted] b");
    assert_eq!(r.redact("first-half-sharedshared-second-half"), "[redacted][redacted]");
}

#[test]
fn what_a_replacement_uncovers_is_replaced_too() {
    let r = redactor("x[redacted]y");
    r.register(&Secret::new("long-enough"));
    assert_eq!(r.redact("a xlong-enoughy b"), "a [redacted] b");
    // One that is part of the mark can only go with the whole text.
    let r = redactor("redacted");
    assert_eq!(r.redact("this is redacted text"), "[redacted]");
}

#[test]
fn ordinary_text_and_short_values_are_left_alone() {
    let r = redactor("short");
    assert_eq!(r.redact("a short text"), "a short text");
    assert!(!r.finds(b"a short text"));
    let r = redactor("a-long-secret");
    for text in ["", "100% & more \\n", "%41%zz\\u0041&amp;&#65;", "{\"a\":\"\\\"b\\\"\"}"] {
        assert!(matches!(r.redact(text), Cow::Borrowed(same) if same == text), "{text}");
    }
}

#[test]
fn bytes_around_a_secret_stay_as_they_are() {
    let r = redactor("a-long-secret");
    assert_eq!(r.redact_bytes(b"\xff\xfea-long%2Dsecret\xff").as_ref(), b"\xff\xfe[redacted]\xff");
}

/// Not a measurement of time: what is counted is the work, in decoded bytes.
#[test]
fn the_work_is_a_fixed_multiple_of_the_text() {
    let text = "%41\\u0041&#65;%25%5c&amp;".repeat(4_000);
    let mut work = 0;
    views::each(&View::plain(text.as_bytes()), &mut |view| {
        work += view.bytes.len();
        false
    });
    assert!(work <= 12 * text.len(), "{work} for {}", text.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_form_survives(
        value in "[ -~]{8,60}|[a-zA-Z0-9_-]{20,80}|\\PC{8,20}",
        spelling in proptest::collection::vec(any::<u8>(), 1..20),
        before in "[ -~]{0,20}",
        after in "[ -~]{0,20}",
    ) {
        let r = redactor(&value);
        for form in forms(&value, &spelling) {
            let clean = r.redact(&form).into_owned();
            prop_assert!(clean.contains(REDACTED), "{form} came through");
            prop_assert!(!r.finds(clean.as_bytes()));
            // Whatever stands around it. A stray `%`, `\\` or `&` may swallow its first character as an escape, so only text is.
            let around = |s: &str| s.replace(['%', '\\', '&'], ".");
            let (before, after) = (around(&before), around(&after));
            // Hex digits and base64 that join it move the boundaries by less than a character each.
            let text = format!("{before} {form} {after}");
            let clean = r.redact(&text).into_owned();
            prop_assert!(clean.contains(REDACTED) && !r.finds(clean.as_bytes()), "{text}: {clean}");
        }
    }

    #[test]
    fn text_without_a_secret_is_not_touched(text in "\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let r = redactor("n0t-in-any-generated-text-\u{1f511}");
        prop_assert!(matches!(r.redact(&text), Cow::Borrowed(_)));
        prop_assert!(matches!(r.redact_bytes(&bytes), Cow::Borrowed(_)));
    }
}

#[test]
fn a_fork_knows_what_was_known_and_keeps_what_it_learns() {
    let first = redactor("known-before-the-fork");
    let fork = first.fork();
    fork.register_all([&Secret::new("known-before-the-fork"), &Secret::new("learnt-after-the-fork")]);
    first.register(&Secret::new("learnt-by-the-first"));
    let text = "known-before-the-fork, learnt-after-the-fork, learnt-by-the-first";
    assert_eq!(fork.redact(text), "[redacted], [redacted], learnt-by-the-first");
    assert_eq!(first.redact(text), "[redacted], learnt-after-the-fork, [redacted]");
}
