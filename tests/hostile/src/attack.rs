//! An attack: a component, and what is expected of it.
use std::io::Read as _;

/// Where a guest keeps its script; the guests' kit has the same.
const MAGIC: &[u8; 16] = b"hostile-script->";
const ROOM: usize = 16 << 10;

/// The longest component that is unpacked, in bytes: one that is too large for psn is among them.
const MAX_BYTES: u64 = 64 << 20;

/// A run is not killed before this, in milliseconds: how late it is, is measured and not guessed.
pub(crate) const LEAST_MS: u64 = 100_000;

#[derive(Debug)]
pub struct Attack {
    pub id: &'static str,
    pub group: &'static str,
    /// The plugin's, unless its manifest says otherwise.
    pub(crate) name: &'static str,
    pub title: &'static str,
    /// The row of the list of known threats.
    pub threat: &'static str,
    /// What other hosts do.
    pub others: &'static str,
    pub(crate) made: Made,
    /// Embedded in the component, in this order.
    pub(crate) manifests: &'static [&'static str],
    pub(crate) expected: Expected,
}

/// All texts are empty and all lists have no items unless expectations.toml says so; it explains them.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) added: &'static str,
    pub(crate) migrated: &'static str,
    pub(crate) code: &'static str,
    pub(crate) told: &'static [&'static str],
    pub(crate) web: &'static [&'static str],
    pub(crate) unseen: &'static [&'static str],
    pub(crate) effects: &'static [&'static str],
    pub(crate) within_ms: u64,
    /// Whether the time limit is the point of the attack, and not just for safety.
    pub(crate) deadline: bool,
    pub(crate) tamper: &'static str,
}

#[derive(Debug)]
pub(crate) enum Made {
    /// Both compressed or raw as the build left them.
    Scripted {
        guest: &'static [u8],
        script: &'static [u8],
    },
    Whole(&'static [u8]),
}

include!(concat!(env!("OUT_DIR"), "/suite.rs"));

/// All of them, in the order in which they run.
pub fn attacks() -> &'static [Attack] {
    ATTACKS
}

impl Attack {
    /// A control shows that the suite sees an effect where there is one.
    pub fn is_control(&self) -> bool {
        !self.expected.effects.is_empty()
    }

    pub(crate) fn is_scripted(&self) -> bool {
        matches!(self.made, Made::Scripted { .. })
    }

    pub(crate) fn wants_database(&self) -> bool {
        self.manifests.iter().any(|m| m.contains("[db]"))
    }

    /// The file that a person is asked to add.
    pub(crate) fn component(&self) -> Vec<u8> {
        let mut bytes = match self.made {
            Made::Whole(bytes) => inflated(bytes),
            Made::Scripted { guest, script } => {
                let mut bytes = inflated(guest);
                let at =
                    bytes.windows(MAGIC.len()).position(|w| w == MAGIC).expect("the guests' kit has room for a script");
                assert!(script.len() <= ROOM - MAGIC.len(), "{}: the script is too long", self.id);
                let at = at + MAGIC.len();
                bytes[at..at + script.len()].copy_from_slice(script);
                bytes
            }
        };
        for manifest in self.manifests {
            custom_section(&mut bytes, "psn:manifest", manifest.as_bytes());
        }
        bytes
    }
}

fn inflated(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::DeflateDecoder::new(bytes).take(MAX_BYTES).read_to_end(&mut out).expect("the build compressed it");
    out
}

fn custom_section(out: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut body = Vec::new();
    leb(&mut body, name.len());
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(content);
    out.push(0);
    leb(out, body.len());
    out.extend_from_slice(&body);
}

fn leb(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_enough_attacks_and_each_group_has_a_control() {
        let (controls, real): (Vec<_>, Vec<_>) = attacks().iter().partition(|a| a.is_control());
        assert!(real.len() >= 80, "{}", real.len());
        for attack in attacks() {
            assert!(controls.iter().any(|c| c.group == attack.group), "{} has no control", attack.group);
        }
    }

    #[test]
    fn a_component_holds_its_script_and_its_manifest() {
        let attack = attacks().iter().find(|a| matches!(a.made, Made::Scripted { .. })).unwrap();
        let Made::Scripted { script, .. } = attack.made else { unreachable!() };
        let bytes = attack.component();
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
        assert!(holds(script) && holds(attack.manifests[0].as_bytes()));
    }

    #[test]
    fn rows_of_the_threat_list_are_covered() {
        let covered = |row: &str| attacks().iter().any(|a| a.threat.split(' ').any(|t| t == row));
        // Not attacks of a component: D12 a hostile server, R24 psn's own code, R19 a registry, which psn has none of. A10 takes two
        // plugins in one process, and here each run is a process.
        let rows = (1..=14)
            .map(|n| format!("A{n}"))
            .chain((1..=14).map(|n| format!("D{n}")))
            .chain((1..=24).map(|n| format!("R{n}")));
        let missing: Vec<String> =
            rows.filter(|r| !["A10", "D12", "R19", "R24"].contains(&r.as_str()) && !covered(r)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
