use super::*;

const SMALL: &str = "[plugin]\nname = \"x\"\nversion = \"0.1.0\"\nworld = \"psn:plugin/step@0.1.0\"\nsummary = \"s\"\n";

#[test]
fn reads_the_manifest_of_the_design() {
    let text = format!(
        "{SMALL}{}",
        r#"
[[http]]
service = "neon"
base = "https://console.neon.tech/api/v2"
auth = { bearer = "NEON_API_KEY" }
routes = ["GET /projects"]
capture = { "POST /projects" = { "/connection_uris/0/connection_uri" = "DATABASE_URL_DIRECT" } }
[db]
"posts" = { select = ["id"], update = ["status"] }
[[tool]]
name = "trigger"
args = [["deploy", "--env", "prod"]]
[limits]
memory = "64MiB"
deadline = "60s"
"#
    );
    let m = Manifest::parse(text.as_bytes()).unwrap();
    assert_eq!(m.http[0].auth.as_ref().unwrap().secret(), "NEON_API_KEY");
    assert_eq!(m.db["posts"].update, ["status"]);
    assert_eq!(m.world(), World::Step);
}

#[test]
fn refuses_what_it_does_not_know() {
    for (tail, says) in [
        ("[limits]\nmemroy = \"64MiB\"\n", "memroy"),
        ("[limits]\nmemory = \"64 megs\"\n", "64 megs"),
        ("[limits]\ndeadline = \"soon\"\n", "soon"),
        ("[task]\ncron = \"* * * * *\"\n", "only a plugin of the world"),
        ("[[http]]\nservice = \"A b\"\nbase = \"https://x\"\nroutes = []\n", "kebab"),
        ("[secrets]\ngenerate = [\"PSN_HUB_ID\"]\n", "PSN_HUB_ID"),
        (
            "[[tool]]\nname = \"t\"\nargs = [[\"a\"]]\ncapture = [{ args = [\"b\"], text = \"X_KEY\" }]\n",
            "not one of the args",
        ),
        ("[[tool]]\nname = \"t\"\nargs = [[\"a\"]]\ncapture = [{ args = [\"a\"] }]\n", "exactly one"),
        (
            "[[tool]]\nname = \"t\"\nargs = [[\"a\"]]\ncapture = [{ args = [\"a\"], json = { x = \"X_KEY\" } }]\n",
            "no JSON pointer",
        ),
        ("[[tool]]\nname = \"t\"\nargs = [[\"a\"]]\ncapture = [{ args = [\"a\"], text = \"PSN_HUB\" }]\n", "PSN_HUB"),
        ("[secrets]\ngenerate = [\"DATABASE_URL_PLUGIN_X\"]\n", "DATABASE_URL_PLUGIN_X"),
        ("[secrets]\ngenerate = [\"A_*\"]\n[[tool]]\nname = \"t\"\nargs = [[\"a\"]]\nenv = [\"A_KEY\"]\n", "A_KEY"),
        (
            "[[tool]]\nname = \"t\"\nargs = [[\"a\"]]\nenv = [\"X_KEY\"]\ncapture = [{ args = [\"a\"], text = \"X_KEY\" }]\n",
            "tool.env",
        ),
        ("[surprise]\n", "surprise"),
    ] {
        let e = Manifest::parse(format!("{SMALL}{tail}").as_bytes()).unwrap_err();
        assert!(e.to_string().contains(says), "{e}");
    }
}

#[test]
fn the_hash_follows_what_is_asked_for_and_nothing_else() {
    let a = Manifest::parse(SMALL.as_bytes()).unwrap();
    let b = Manifest::parse(SMALL.replace("summary = \"s\"", "summary = \"t\"").as_bytes()).unwrap();
    let c = Manifest::parse(format!("{SMALL}[hub]\nfacts = [\"git\"]\n").as_bytes()).unwrap();
    assert_eq!(a.capabilities_hash(), b.capabilities_hash());
    assert_ne!(a.capabilities_hash(), c.capabilities_hash());
    let tool = format!("{SMALL}[[tool]]\nname = \"t\"\nargs = [[\"a\"]]\n");
    let hashes: std::collections::BTreeSet<String> = [
        "",
        "addresses = { T_HOST = \"neon\" }\n",
        "capture = [{ args = [\"a\"], text = \"X_KEY\" }]\n",
        "capture = [{ args = [\"a\"], json = { \"/a\" = \"X_KEY\" } }]\n",
    ]
    .iter()
    .map(|tail| Manifest::parse(format!("{tool}{tail}").as_bytes()).unwrap().capabilities_hash())
    .collect();
    assert_eq!(hashes.len(), 4);
}

#[test]
fn sizes_and_durations() {
    assert_eq!(parse_bytes("64MiB"), Some(64 << 20));
    assert_eq!(parse_bytes("64MB"), None);
    assert_eq!(parse_bytes("99999999999GiB"), None);
    assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
    assert_eq!(parse_duration("5m"), Some(Duration::from_secs(300)));
    assert_eq!(parse_duration("m"), None);
}
