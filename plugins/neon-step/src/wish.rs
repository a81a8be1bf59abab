//! What the project is to be like, from settings. What a setting gets wrong is asked for, with the choices there are.

use psn_plugin::prelude::*;

use crate::api::{Neon, Wish};

/// The versions that Neon makes projects of.
const PG_VERSIONS: std::ops::RangeInclusive<u32> = 14..=18;

/// What a project is made of by choice.
pub(crate) const SETTINGS: [&str; 3] = ["neon.region", "neon.pg_version", "neon.org_id"];

/// None of these is needed: Neon has a default for each, which is the one that suits most people.
pub(crate) fn wish(name: &str, org_id: Option<&str>) -> Wish {
    Wish {
        name: name.to_owned(),
        org_id: org_id.map(str::to_owned),
        region: context::setting("neon.region"),
        pg_version: context::setting("neon.pg_version").and_then(|text| text.parse().ok()),
        database: context::setting_or("neon.database", crate::DATABASE),
        role: context::setting_or("neon.role", crate::ROLE),
    }
}

/// Settings that Neon would refuse.
pub(crate) fn needs(neon: &impl Neon) -> Result<Vec<Need>, Failure> {
    let mut needs = Vec::new();
    if let Some(version) = context::setting("neon.pg_version")
        && !version.parse().is_ok_and(|number: u32| PG_VERSIONS.contains(&number))
    {
        let origin = format!("config/psn.toml; Neon has no Postgres {version}");
        needs
            .push(Need::setting("neon.pg_version", origin).choices(PG_VERSIONS.rev().map(|number| number.to_string())));
    }
    if let Some(region) = context::setting("neon.region") {
        let regions = neon.regions()?;
        if !regions.is_empty() && !regions.contains(&region) {
            let origin = format!("config/psn.toml; Neon has no region {region}");
            needs.push(Need::setting("neon.region", origin).choices(regions));
        }
    }
    Ok(needs)
}
