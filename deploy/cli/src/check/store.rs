//! Whether what is given to the store stays there.

use super::finding::{Finding, Group};
use mesh_config::Mesh;
use mesh_config::secret::Secrets;
use mesh_local::{Durability, StoreUrl, durability};

/// Memory that is taken, of what may be, above which there is little left.
const TIGHT: f64 = 0.9;

pub async fn check(mesh: &Mesh, secrets: &Secrets) -> Group {
    let mut group = Group::new("store");
    let Some(source) = &mesh.store.redis else {
        group.push(
            Finding::warn(
                "store_in_memory",
                "tasks are kept in memory: a restart forgets them",
            )
            .mend("store: {backend: redis, url: {env: REDIS_URL}} for a mesh that others rely on"),
        );
        return group;
    };
    let url = secrets.value(source).unwrap_or_default().to_owned();
    let url = match StoreUrl::try_from(url) {
        Ok(url) => url,
        Err(why) => {
            group.push(Finding::fail("store_url", format!("store.url: {why}")));
            return group;
        }
    };
    match durability(&url).await {
        Ok(found) => judge(&found, &mut group),
        Err(error) => group.push(
            Finding::fail("store_unreachable", error.to_string())
                .mend("start Redis, or mend store.url; until then no task is accepted"),
        ),
    }
    group
}

fn judge(found: &Durability, group: &mut Group) {
    group.push(Finding::pass(format!("Redis {} answers", found.version)));
    let major = found.version.split('.').next().unwrap_or_default();
    if major.parse::<u32>().is_ok_and(|major| major < 6) {
        group.push(
            Finding::fail(
                "store_too_old",
                format!("Redis {} is too old", found.version),
            )
            .mend("6.0 is the oldest that is tried"),
        );
    }
    group.push(if found.primary {
        Finding::pass("it takes writes")
    } else {
        Finding::fail(
            "store_is_replica",
            "it follows another server and takes no writes",
        )
        .mend("point store.url at the primary")
    });
    group.push(persistence(found));
    group.push(if found.eviction == "noeviction" {
        Finding::pass("it puts nothing out when memory is full")
    } else {
        let policy = &found.eviction;
        Finding::fail(
            "store_evicts",
            format!("maxmemory-policy is {policy}: tasks are lost when memory is full"),
        )
        .mend("set maxmemory-policy noeviction: a full store then refuses new tasks (503)")
    });
    #[allow(clippy::cast_precision_loss)] // a share
    let share = found.used_memory as f64 / found.max_memory.max(1) as f64;
    if found.max_memory > 0 && share > TIGHT {
        group.push(
            Finding::warn(
                "store_nearly_full",
                format!("{:.0} % of maxmemory is taken", share * 100.0),
            )
            .mend("raise maxmemory, or shorten store.retention"),
        );
    }
}

fn persistence(found: &Durability) -> Finding {
    const ON: &str = "set appendonly yes (CONFIG SET appendonly yes, and in redis.conf)";
    if !found.append_only {
        let then = match found.snapshots {
            Some(false) => "a restart of Redis loses every task",
            _ => "a crash of Redis loses every task since the last snapshot",
        };
        let what = format!("Redis writes no append-only file: {then}");
        return Finding::fail("store_not_persistent", what).mend(ON);
    }
    match found.sync.as_deref() {
        Some("no") => Finding::warn(
            "store_syncs_rarely",
            "appendfsync is no: a power cut loses what the system has not written, up to half a minute",
        )
        .mend("set appendfsync everysec, or always"),
        Some("always") => Finding::pass("every write is on disk before it is answered"),
        Some(_) => Finding::pass("writes are on disk within a second (a crash of Redis alone loses none)"),
        None => Finding::pass("it writes an append-only file; when it syncs, it does not say"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::State;

    fn codes(found: &Durability) -> Vec<&'static str> {
        let mut group = Group::new("store");
        judge(found, &mut group);
        group.findings.iter().filter_map(|f| f.code).collect()
    }

    #[test]
    fn every_way_to_lose_tasks_has_its_code() {
        let good = Durability {
            version: "7.0.15".to_owned(),
            primary: true,
            append_only: true,
            sync: Some("everysec".to_owned()),
            snapshots: Some(false),
            eviction: "noeviction".to_owned(),
            max_memory: 0,
            used_memory: 1,
        };
        assert!(codes(&good).is_empty());
        let with = |change: fn(&mut Durability)| {
            let mut found = good.clone();
            change(&mut found);
            codes(&found)
        };
        assert_eq!(with(|f| f.append_only = false), ["store_not_persistent"]);
        assert_eq!(
            with(|f| f.sync = Some("no".to_owned())),
            ["store_syncs_rarely"]
        );
        assert_eq!(
            with(|f| f.eviction = "allkeys-lru".to_owned()),
            ["store_evicts"]
        );
        assert_eq!(with(|f| f.primary = false), ["store_is_replica"]);
        assert_eq!(with(|f| f.version = "5.0.1".to_owned()), ["store_too_old"]);
        assert_eq!(with(|f| f.max_memory = 1), ["store_nearly_full"]);
        assert_eq!(persistence(&Durability::default()).state, State::Fail);
    }
}
