//! Postgres's binary `numeric`: how many digits of base 10,000, the weight of the first, a sign, digits shown after the point.

const BASE: u64 = 10_000;
const NEGATIVE: u16 = 0x4000;

pub(super) fn encode(value: i64) -> Vec<u8> {
    let mut digits = Vec::new();
    let mut rest = value.unsigned_abs();
    while rest > 0 {
        digits.push(u16::try_from(rest % BASE).unwrap_or_default());
        rest /= BASE;
    }
    digits.reverse();
    // At most five digits.
    let count = u16::try_from(digits.len()).unwrap_or_default();
    let sign = if value < 0 { NEGATIVE } else { 0 };
    [count, count.saturating_sub(1), sign, 0].into_iter().chain(digits).flat_map(u16::to_be_bytes).collect()
}

pub(super) fn decode(bytes: &[u8]) -> Option<String> {
    let mut words = bytes.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]]));
    let (count, weight, sign, scale) = (words.next()?, words.next()?.cast_signed(), words.next()?, words.next()?);
    let digits: Vec<u16> = words.collect();
    if digits.len() != usize::from(count) {
        return None;
    }
    let mut text = match sign {
        0 => String::new(),
        NEGATIVE => "-".to_owned(),
        0xC000 => return Some("NaN".to_owned()),
        0xD000 => return Some("Infinity".to_owned()),
        0xF000 => return Some("-Infinity".to_owned()),
        _ => return None,
    };
    // The digit that stands `place` places left of the point's own.
    let digit =
        |place: i32| usize::try_from(i32::from(weight) - place).ok().and_then(|i| digits.get(i)).copied().unwrap_or(0);
    let mut whole: String = (0..=i32::from(weight)).rev().map(|place| format!("{:04}", digit(place))).collect();
    whole.drain(..whole.len() - whole.trim_start_matches('0').len());
    text.push_str(if whole.is_empty() { "0" } else { &whole });
    if scale > 0 {
        let scale = usize::from(scale);
        let places = i32::try_from(scale.div_ceil(4)).ok()?;
        let mut part: String = (1..=places).map(|place| format!("{:04}", digit(-place))).collect();
        part.truncate(scale);
        text.push('.');
        text.push_str(&part);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_there_and_back() {
        for value in [0, 1, -1, 9_999, 10_000, 10_001, -123_456_789, i64::MAX, i64::MIN] {
            assert_eq!(decode(&encode(value)).unwrap(), value.to_string());
        }
    }

    #[test]
    fn fractions_and_the_odd_ones() {
        let words = |w: &[u16]| decode(&w.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>());
        assert_eq!(words(&[2, 0, 0, 2, 12, 3400]).unwrap(), "12.34");
        assert_eq!(words(&[1, 0xFFFF, NEGATIVE, 4, 5]).unwrap(), "-0.0005");
        assert_eq!(words(&[1, 0xFFFE, 0, 6, 1200]).unwrap(), "0.000012");
        assert_eq!(words(&[0, 0, 0, 3]).unwrap(), "0.000");
        assert_eq!(words(&[0, 0, 0xC000, 0]).unwrap(), "NaN");
        assert_eq!(words(&[3, 0, 0, 0, 1]), None);
        assert_eq!(decode(&[1]), None);
    }
}
