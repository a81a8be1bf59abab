//! Which cases of a matrix a run takes: all, or a sample that is spread over its kinds and can be taken again.
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::{SystemTime, UNIX_EPOCH};

/// How many cases are taken: all with `PSN_MATRIX=full`, that many with `PSN_MATRIX=200`, else the few of a plain test run.
pub fn size(few: usize, all: usize) -> usize {
    match std::env::var("PSN_MATRIX").as_deref() {
        Ok("full") => all,
        Ok(number) => number.parse().unwrap_or(few).min(all),
        Err(_) => few.min(all),
    }
}

/// Whether more is taken than in a plain test run: then it is shared out among workers.
pub fn is_wide() -> bool {
    std::env::var("PSN_MATRIX").is_ok_and(|m| m == "full" || m.parse::<usize>().is_ok())
}

/// `PSN_MATRIX_SEED`, or another one each time. Printed with the counts.
pub fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| u64::from(d.subsec_nanos()) + d.as_secs());
    std::env::var("PSN_MATRIX_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(now)
}

/// `PSN_MATRIX_WORKERS`: local hubs at once in a full run.
pub fn workers() -> usize {
    std::env::var("PSN_MATRIX_WORKERS").ok().and_then(|s| s.parse().ok()).unwrap_or(2)
}

/// A number that the seed and the item decide, so that it does not depend on what else there is.
pub fn chance(seed: u64, item: impl Hash) -> u64 {
    let mut hash = DefaultHasher::new();
    (seed, item).hash(&mut hash);
    hash.finish()
}

/// `most` of the items: in turn one of each group, the groups and their items in an order that the seed decides.
pub fn spread<T: Clone + Hash, G: Ord + Hash>(items: &[T], group: impl Fn(&T) -> G, most: usize, seed: u64) -> Vec<T> {
    let mut groups: std::collections::BTreeMap<G, Vec<T>> = std::collections::BTreeMap::new();
    for item in items {
        groups.entry(group(item)).or_default().push(item.clone());
    }
    let mut groups: Vec<(u64, Vec<T>)> = groups.into_iter().map(|(g, items)| (chance(seed, &g), items)).collect();
    groups.sort_by_key(|(order, _)| *order);
    for (_, items) in &mut groups {
        items.sort_by_key(|item| chance(seed, item));
    }
    let mut taken = Vec::new();
    for turn in 0..items.len() {
        taken.extend(groups.iter().filter_map(|(_, items)| items.get(turn).cloned()));
        if taken.len() >= most {
            break;
        }
    }
    taken.truncate(most);
    taken
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn a_sample_has_something_of_each_group_and_is_the_same_again() {
        let items: Vec<(char, u32)> = ('a'..='e').flat_map(|c| (0..20).map(move |n| (c, n))).collect();
        let taken = spread(&items, |(c, _)| *c, 7, 42);
        assert_eq!(taken.len(), 7);
        for c in 'a'..='e' {
            assert!(taken.iter().any(|(t, _)| *t == c), "{c} in {taken:?}");
        }
        assert_eq!(taken, spread(&items, |(c, _)| *c, 7, 42));
        assert_eq!(spread(&items, |(c, _)| *c, 1_000, 42).len(), 100);
    }
}
